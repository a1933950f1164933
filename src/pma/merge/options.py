"""What a user chooses: which weights go into a merge, how it is computed and stored, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from pma.device import cpu_cores

DTYPES = {"float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16", "newest": None}
# Bytes of snapshots read a second and core, for estimates: ten bf16 snapshots of 533 MB from the page cache took 1.5 s
# on two cores beside the time to start (benchmarks/merge.py --cases sma).
MERGE_RATE = 1.8e9


@dataclass
class Policy:
    """What happens where averaging could be wrong; recorded with every merge.

    A tensor that one snapshot lacks, or has in another shape, is always refused, and so is a finite sum that its
    storage type cannot hold. Floating types may differ: each is read in its own. Equal integers are copied. An
    lm_head.weight that only some folders hold is left out where every config says that it is tied to the embeddings.
    """

    integers: str = "refuse"  # that differ: refuse | newest (takes the newest's)
    router_bias: str = "average"  # load-balancing biases of routers: average | newest
    suspicious: str = "refuse"  # NaN or infinity in a snapshot, a snapshot far from the others: refuse | warn

    def check(self) -> None:
        """Raise ValueError for an unknown choice."""
        choices = {
            "integers": ("refuse", "newest"),
            "router_bias": ("average", "newest"),
            "suspicious": ("refuse", "warn"),
        }
        for key, allowed in choices.items():
            if getattr(self, key) not in allowed:
                raise ValueError(f"{key}={getattr(self, key)}: choose {' or '.join(allowed)}")


@dataclass
class Part:
    """Which tensors of a checkpoint are the model, where it holds others too."""

    prefix: str | None = None  # take only tensors whose names begin with it, and take it off
    state: str | None = None  # model | ema, of checkpoints that hold the weights and an average of them
    key: str | None = None  # path of the state dict in a .pt, .pth, .bin or .ckpt file: key=ema.shadow

    def check(self) -> None:
        """Raise ValueError for an impossible choice."""
        if self.state not in (None, "model", "ema"):
            raise ValueError(f"state={self.state}: choose model or ema")


@dataclass
class Options(Part):
    """How merges are computed and stored."""

    dtype: str = "newest"  # storage type: newest (as in the newest source) | float32 | bfloat16 | float16 | float64
    accumulate: str = "float32"  # type of the sums: float32 | float64
    format: str = "safetensors"  # of the output: safetensors | dcp
    shard_size: int = 5_000_000_000  # bytes of an output file at most, unless one tensor is larger
    assets: str | None = None  # folder whose config and tokenizer go with the merge; null: the newest source
    resumable: bool = False  # a checkpoint to train on from, as the newest source's trainer writes them
    optimizer: str = "last"  # with resumable: state of the optimizer: last (the newest source's) | reset | average
    lora: str = "exact"  # of adapters: exact (the mean of their products; ranks add up) | factors (A and B apart)
    memory: int = 8_388_608  # bytes for blocks in flight
    threads: int = 0  # 0: the cores this process may use. Does not change the bits
    diagnose: bool = True  # distances, cosines and variances into diagnostics.json; outliers are looked for anyway

    def check(self) -> None:
        """Raise ValueError for an impossible choice."""
        super().check()
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype}: choose one of {', '.join(DTYPES)}")
        if self.accumulate not in ("float32", "float64"):
            raise ValueError(f"accumulate={self.accumulate}: choose float32 or float64")
        if self.format not in ("safetensors", "dcp"):
            raise ValueError(f"format={self.format}: choose safetensors or dcp")
        if self.lora not in ("exact", "factors"):
            raise ValueError(f"lora={self.lora}: choose exact or factors")
        if self.optimizer not in ("last", "reset", "average"):
            raise ValueError(f"optimizer={self.optimizer}: choose last, reset or average")
        if self.resumable:
            self._check_resumable()
        elif self.optimizer != "last":
            raise ValueError(f"optimizer={self.optimizer}: goes with resumable=true")
        if self.assets is not None and not Path(self.assets).is_dir():
            raise ValueError(f"assets={self.assets}: no such folder; give one with config.json and tokenizer")
        if self.shard_size < 1 or self.memory < 1:
            raise ValueError("shard_size and memory: give a positive number of bytes")
        if self.threads < 0:
            raise ValueError(f"threads={self.threads}: give a number above 0, or 0 for the cores this process may use")

    def _check_resumable(self) -> None:
        changed = {"dtype": self.dtype != "newest", "format": self.format != "safetensors"}
        changed |= {"prefix": bool(self.prefix), "assets": self.assets is not None}
        for key in [key for key, given in changed.items() if given]:
            raise ValueError(
                f"{key}={getattr(self, key)}: leave it out with resumable=true, which keeps all as the newest source "
                f"has it"
            )
        if self.state == "ema":
            raise ValueError(
                "resumable=true: training goes on from the weights and not from their average; say state=model (the "
                "average is merged with them), or leave resumable out"
            )

    def cores(self) -> int:
        """Threads to run."""
        return self.threads or cpu_cores()


@dataclass(frozen=True)
class Merge:
    """One merge to make: a weight for each source, oldest first, and where it goes.

    Attributes:
        recipe: what the weights came from, for the provenance.
    """

    weights: tuple[float, ...]
    output: Path
    recipe: Mapping[str, Any]


Kind = TypeVar("Kind", Part, Options, Policy)


def select(kind: type[Kind], job: Any) -> Kind:
    """Return the fields of `kind` that a command's config holds, as a `kind`: `select(Policy, job)`."""
    return kind(**{field.name: getattr(job, field.name) for field in fields(kind)})
