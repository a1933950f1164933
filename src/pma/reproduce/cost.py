"""Rough costs of training and scoring: assumed rates of a GPU, fitted rates of a CPU thread, bytes on disk."""

from __future__ import annotations

# Of an H100 SXM. What we aim at; none of it was measured. `python -m pma.plan` states them and takes others.
PEAK_FLOPS = 989.4e12  # FLOP/s, dense bf16, from NVIDIA's data sheet
MFU_DENSE = 0.40  # model FLOP/s of training as a share of the peak
MFU_MOE = 0.25
MFU_SCORING = 0.20  # of forward passes alone

# Seconds of training on one CPU thread: a fixed cost a token, more of it with experts, and one a FLOP. Fitted to the
# models of scale cpu, within 10%, on one of two busy cores with AVX2; on other machines only the proportions hold.
_THREAD_TOKEN = {"dense": 1.4e-5, "moe": 3.4e-5}
_THREAD_FLOP = 1.85e-11

# Bytes a parameter on disk: of a snapshot by its storage type; of a checkpoint with both moments of AdamW, all in fp32.
SNAPSHOT_BYTES = {"float32": 4, "bfloat16": 2}
CHECKPOINT_BYTES = 12


def gpu_seconds(flops: float, utilisation: float, peak_flops: float = PEAK_FLOPS) -> float:
    """Seconds that one GPU takes for `flops` at a share `utilisation` of its peak, in FLOP/s."""
    return flops / (peak_flops * utilisation)


def thread_seconds(kind: str, flops_per_token: float, tokens: int) -> float:
    """Seconds that one CPU thread takes to train `tokens`; `kind` is dense or moe."""
    return tokens * (_THREAD_TOKEN[kind] + _THREAD_FLOP * flops_per_token)


def training_seconds(kind: str, flops_per_token: float, tokens: int, gpu: bool) -> float:
    """Seconds to train `tokens` on one thread, or on one GPU; the plan of a reproduction and the order of runs use it.

    `flops_per_token` is of training, forward and backward pass: `pma.model.build.flops_per_token`.
    """
    if gpu:
        return gpu_seconds(tokens * flops_per_token, MFU_MOE if kind == "moe" else MFU_DENSE)
    return thread_seconds(kind, flops_per_token, tokens)
