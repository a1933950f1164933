"""The wheel, in an empty environment with the core dependencies alone, merges from any folder."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import venv
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from markdown_files import blocks
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parents[1]
BY_CALL = """
import sys, pma
heavy = {"numpy", "numba", "hydra"} & {*sys.modules}
from pma.merge import Policy
import pma.config, pma.files
assert pma.files.revision() is None
assert (pma.config.CONF_DIR.parent / "runs/cpu/published/annealing_forecast/records.csv").is_file()  # of pma.watch
print(pma.merge(["A", "B", "C"], output="by-call", method="wma", policy=Policy(suspicious="warn")), heavy)
"""


def run(*command: str | Path, cwd: Path, ok: bool = True) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "HF_HUB_OFFLINE")}
    process = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert (process.returncode == 0) == ok, process.stdout + process.stderr
    return process.stdout if ok else process.stderr


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """Python of a new environment in which the wheel was installed, and nothing that it does not ask for."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT, cwd=folder)
    venv.create(folder / "empty", symlinks=True)
    python = folder / "empty" / "bin" / "python"
    try:
        run(*pip, "--python", python, "install", "--no-compile", *folder.glob("pma-*.whl"), cwd=folder)
    except AssertionError as error:
        if "No matching distribution" in str(error) or "Connection" in str(error):
            pytest.skip("no package index within reach")
        raise
    return python


def test_the_readmes_five_lines_run_from_the_wheel(python, tmp_path):
    (block,) = (block for block in blocks(ROOT / "README.md") if block.runs)
    assert len(list(filter(None, block.text.splitlines()))) == 5
    run(python, "-c", block.text, cwd=tmp_path)
    np.testing.assert_allclose(load_file(tmp_path / "merged" / "model.safetensors")["w"], 2)


def test_the_wheel_merges_by_command_and_by_call_without_torch(python, tmp_path):
    listed = run(sys.executable, "-m", "pip", "--python", python, "list", "--format=json", cwd=tmp_path)
    installed = {row["name"] for row in json.loads(listed)}
    assert not installed & {"torch", "transformers", "pandas", "wandb"} and len(installed) < 20
    weights = {name: np.full((4, 8), i, np.float32) for i, name in enumerate("ABC")}
    for name, array in weights.items():
        (tmp_path / name).mkdir()
        save_file({"layer.weight": array}, tmp_path / name / "model.safetensors")

    command = ("sources=[A,B,C]", "method=wma", "suspicious=warn")
    run(python.with_name("pma-merge"), *command, "output=by-script", cwd=tmp_path)
    run(python, "-m", "pma.merge", *command, "output=by-module", cwd=tmp_path)
    assert run(python, "-c", BY_CALL, cwd=tmp_path) == "by-call set()\n"
    for name in ("by-script", "by-module", "by-call"):
        merged = load_file(tmp_path / name / "model.safetensors")
        np.testing.assert_allclose(merged["layer.weight"], (0 + 2 * 1 + 3 * 2) / 6, rtol=1e-6)

    (tmp_path / "distributed").mkdir()
    with open(tmp_path / "distributed" / ".metadata", "wb") as file:
        pickle.dump(Fraction(1), file)  # of any class: which ones a checkpoint may name is asked of torch
    for sources, extra in (("[org/model@main]", "hub"), ("[distributed]", "train")):
        line = run(python, "-m", "pma.merge", f"sources={sources}", "method=sma", "output=O", cwd=tmp_path, ok=False)
        assert line.startswith("error: ") and line.endswith(f"pip install 'pma[{extra}]'\n") and line.count("\n") == 1
