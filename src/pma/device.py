"""The hardware that a command may use: which device, and how many CPU cores. Imports nothing heavy."""

from __future__ import annotations

import os


def choose_device(requested: str) -> str:
    """Return `cpu` or `cuda` for the user's `auto`, `cpu` or `cuda`; `auto` takes a GPU where one is visible.

    Raises:
        ValueError: when the name is another, or when `cuda` is requested and no GPU is visible.
    """
    if requested not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={requested}: choose auto, cpu or cuda")
    if requested == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if requested == "cuda":
        raise ValueError("device=cuda: no CUDA device is visible; give device=cpu, or auto")
    return "cpu"


def cpu_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux; macOS and Windows have no affinity to ask for
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_threads(requested: int) -> int:
    """Return the CPU threads to use: `requested` if above 0, else OMP_NUM_THREADS if set, else `cpu_cores()`."""
    return requested or int(os.environ.get("OMP_NUM_THREADS", 0)) or cpu_cores()
