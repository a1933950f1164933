"""Checkpoints of the real writers, merged, compared with float64 and trained on: `python tests/interop/check.py`.

Makes an environment of its own with Megatron-Core 0.16 and 0.15, OLMo-core, torchtitan, transformers, Lightning and
PEFT (about 4 minutes and 2 GB the first time), lets their own code write three checkpoints each on the CPU, the
distributed ones in two processes, merges them with this package, and compares every tensor. Of each it also makes a
checkpoint to train on from, which the writer's own code loads and trains a step on. Needs the package index.
`--fixtures` renews the files in tests/merge/fixtures; `--only NAME` looks at one writer.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

import pma

HERE = Path(__file__).parent
PACKAGES = ["torch==2.13.0", "megatron-core==0.16.1", "ai2-olmo-core==3.0.0", "psutil", "peft==0.21.2"]
PACKAGES += ["torchtitan==0.3.0", "lightning==2.6.6", "accelerate==1.15.0"]
OLDER = {"megatron_0_15": "megatron-core==0.15.3"}  # beside them, in folders of their own
# The names of a writer's checkpoints, and its script.
WRITERS = {
    "megatron": ("iter_{:07d}", "write_megatron.py"),
    "megatron_0_15": ("iter_{:07d}", "write_megatron.py"),
    "olmo": ("step{}", "write_olmo.py"),
    "torchtitan": ("step-{}", "write_torchtitan.py"),
    "trainer": ("checkpoint-{}", "write_trainer.py"),
    "lightning": ("epoch=0-step={}.ckpt", "write_lightning.py"),
}
ALONE = ("trainer", "lightning")  # write in one process
PACKED = ("megatron", "megatron_0_15", "olmo")  # in tests/merge/fixtures
STEPS = (10, 20, 30)
WEIGHTS = (0.2, 0.3, 0.5)


def environment(folder: Path) -> Path:
    """Return the Python of an environment with the writers, made if it is not there."""
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, *PACKAGES], check=True)
        for writer, package in OLDER.items():
            subprocess.run([*install, "--no-deps", "--target", folder / writer, package], check=True)
        (folder / ".installed").touch()
    return python


def run(python: Path, writer: str, script: str, *paths: Path) -> None:
    """Let a writer's own code write its checkpoints below a path, or train on from one that is given too."""
    launch = [] if writer in ALONE else ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    older = {"PYTHONPATH": str(python.parents[1].absolute() / writer)} if writer in OLDER else {}
    subprocess.run([python, *launch, HERE / script, *paths], check=True, env={**os.environ, **older})


def train_on(python: Path, writer: str, name: str, script: str, out: Path) -> None:
    """Make a merge that can be trained on, for each way with the optimizer, and let the writer's own code do so."""
    sources = [out / name.format(step) for step in STEPS]
    for optimizer in ("last", "average"):
        output = out / f"on-{optimizer}" / sources[-1].name
        merged = pma.merge(sources, output, weights=WEIGHTS, resumable=True, optimizer=optimizer)
        run(python, writer, script, out, merged)
        print(f"{writer}: trained on from a merge, optimizer={optimizer}", flush=True)


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


def compare_adapters(python: Path, out: Path) -> float:
    """Merge adapters that PEFT trained; the largest difference between PEFT's models and their mean, in float64."""
    script = HERE / "peft_adapters.py"
    subprocess.run([python, script, "write", out], check=True)
    merged = pma.merge([out / f"checkpoint-{step}" for step in STEPS], out / "merged", weights=WEIGHTS)
    command = [python, script, "verify", out, merged, *map(str, WEIGHTS)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def report(writer: str, worst: float) -> None:
    """Print how far a merge is from float64.

    Raises:
        SystemExit: when it is further than rounding explains.
    """
    print(f"{writer}: {len(STEPS)} checkpoints merged, largest difference from float64 {worst:.1e}", flush=True)
    if worst > 1e-6:
        raise SystemExit(f"{writer}: more than rounding to fp32 explains")


def renew(out: Path, name: str, fixture: Path) -> None:
    """Pack one checkpoint and what it should hold for the quick tests."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(out / name.format(STEPS[0]), Path(folder) / "checkpoint")
        shutil.copy(out / f"expected-{STEPS[0]}.pt", Path(folder) / "expected.pt")
        shutil.make_archive(str(fixture), "xztar", folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, default=HERE / ".venv", help="where the writers are installed")
    parser.add_argument("--only", choices=[*WRITERS, "peft"], help="one writer")
    parser.add_argument("--fixtures", action="store_true", help="renew tests/merge/fixtures")
    arguments = parser.parse_args()
    python = environment(arguments.environment)
    for writer, (name, script) in WRITERS.items():
        if arguments.only not in (None, writer):
            continue
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / writer
            run(python, writer, script, out)
            if arguments.fixtures and writer in PACKED:
                renew(out, name, HERE.parent / "merge" / "fixtures" / writer)
            report(writer, compare(out, name))
            train_on(python, writer, name, script, out)
    if arguments.only in (None, "peft"):
        with tempfile.TemporaryDirectory() as folder:
            report("peft", compare_adapters(python, Path(folder)))


if __name__ == "__main__":
    main()
