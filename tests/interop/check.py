"""Checkpoints of the real writers, merged and compared with float64: `python tests/interop/check.py`.

Makes an environment of its own with Megatron-Core and OLMo-core (about 3 minutes and 1.5 GB the first time), lets their
own code write three checkpoints each in two processes on the CPU, merges them with this package, and compares every
tensor. Needs the package index. `--fixtures` renews the files in tests/merge/fixtures.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

import pma

HERE = Path(__file__).parent
PACKAGES = ["torch==2.13.0", "megatron-core==0.16.1", "ai2-olmo-core==3.0.0", "psutil"]
WRITERS = {"megatron": "iter_{:07d}", "olmo": "step{}"}
STEPS = (10, 20, 30)
WEIGHTS = (0.2, 0.3, 0.5)


def environment(folder: Path) -> Path:
    """Return the Python of an environment with the writers, made if it is not there."""
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (folder / ".installed").touch()
    return python


def write(python: Path, writer: str, out: Path) -> None:
    """Let a writer's own code write its checkpoints below `out`."""
    launch = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    subprocess.run([python, *launch, HERE / f"write_{writer}.py", out], check=True)


def compare(out: Path, name: str) -> float:
    """Merge the checkpoints below `out`, and return the largest difference from the sum in float64."""
    merged = pma.merge([out / name.format(step) for step in STEPS], out / "merged", weights=WEIGHTS, dtype="float32")
    made = load_file(merged / "model.safetensors")
    kept = [torch.load(out / f"expected-{step}.pt", weights_only=True) for step in STEPS]
    if made.keys() != kept[0].keys():
        raise SystemExit(f"{out}: other tensors than the writer's: {sorted(made.keys() ^ kept[0].keys())[:5]}")
    worst = 0.0
    for tensor, values in made.items():
        expected = sum(weight * each[tensor].double() for weight, each in zip(WEIGHTS, kept, strict=True))
        worst = max(worst, float((values.double() - expected).abs().max()))
    return worst


def renew(out: Path, name: str, fixture: Path) -> None:
    """Pack one checkpoint and what it should hold for the quick tests."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(out / name.format(STEPS[0]), Path(folder) / "checkpoint")
        shutil.copy(out / f"expected-{STEPS[0]}.pt", Path(folder) / "expected.pt")
        shutil.make_archive(str(fixture), "xztar", folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, default=HERE / ".venv", help="where the writers are installed")
    parser.add_argument("--fixtures", action="store_true", help="renew tests/merge/fixtures")
    arguments = parser.parse_args()
    python = environment(arguments.environment)
    for writer, name in WRITERS.items():
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / writer
            write(python, writer, out)
            if arguments.fixtures:
                renew(out, name, HERE.parent / "merge" / "fixtures" / writer)
            worst = compare(out, name)
            print(f"{writer}: {len(STEPS)} checkpoints merged, largest difference from float64 {worst:.1e}")
            if worst > 1e-6:
                raise SystemExit(f"{writer}: more than rounding to fp32 explains")


if __name__ == "__main__":
    main()
