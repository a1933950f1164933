"""`python -m pma.merge`: the bytes of the call, in any number of processes, and options that stand once."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields

import pytest
from omegaconf import OmegaConf

import pma
from pma.json_files import MANIFEST
from pma.merge import Options, Policy
from pma.merge.__main__ import MergeJob, main
from pma.merge.options import select
from pma.snapshot import content_of

FORKED = """
import sys
import pma
from pma.merge import stream
stream.FORK = 0  # as for large models
pma.merge(sys.argv[2:], sys.argv[1], "wma", threads=2)
assert "torch" not in sys.modules
"""


def run(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_the_command_and_forked_processes_make_the_bytes_of_the_call(tmp_path, snapshots_of_a_run):
    folders = snapshots_of_a_run(tmp_path, 3)
    called = pma.merge(folders, tmp_path / "called", "wma", threads=2)  # threads, for torch is at work here
    sources = f"sources=[{','.join(map(str, folders))}]"
    command = run("-m", "pma.merge", sources, "method=wma", "threads=2", f"output={tmp_path}/command")
    forked = run("-c", FORKED, tmp_path / "forked", *folders)
    for done, output in ((command, "command"), (forked, "forked")):
        assert done.returncode == 0, done.stderr[-2000:]
        for name in ("model.safetensors", "diagnostics.json"):
            assert (called / name).read_bytes() == (tmp_path / output / name).read_bytes()
    again = run("-m", "pma.merge", sources, "method=wma", f"output={tmp_path}/command")
    assert again.returncode == 1 and "command: exists already" in again.stderr and "Traceback" not in again.stderr


def test_processes_of_torchrun_make_the_same_bytes(tmp_path, snapshots_of_a_run):
    folders = snapshots_of_a_run(tmp_path, 3)
    alone = pma.merge(folders, tmp_path / "alone")
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node=3", "--master_port=0", "--standalone"]
    merge = ["-m", "pma.merge", f"sources=[{','.join(map(str, folders))}]", "method=sma", f"output={tmp_path}/shared"]
    done = run(*torchrun, *merge)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("model.safetensors", "diagnostics.json"):
        assert (alone / name).read_bytes() == (tmp_path / "shared" / name).read_bytes()
    assert json.loads((tmp_path / "shared" / MANIFEST).read_text())["content"] == content_of(alone)


def test_importing_the_package_is_cheap():
    heavy = "{'numba', 'torch', 'transformers', 'pandas', 'wandb', 'tqdm'}"
    command = f"import sys, pma.merge.__main__, pma.snapshot; print({heavy} & set(sys.modules))"
    assert run("-c", command).stdout == "set()\n"


def test_options_stand_once():
    job = OmegaConf.structured(MergeJob)
    assert select(Options, job) == Options() and select(Policy, job) == Policy()
    names = {field.name for field in (*fields(Options), *fields(Policy))}
    assert not names & MergeJob.__dict__.get("__annotations__", {}).keys()


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"weights": [0.5, 0.5]}, "give either method="),
        ({"method": None, "alpha": 0.2}, "alpha goes with method=ema"),
        ({"output": None}, "give output=DIR"),
        ({"interval": 3}, "interval: goes with run_dir"),
        ({"weights": [float("nan"), 1.0], "method": None}, "not all are finite"),
        ({"method": "linear", "positions": [1.0, float("nan")]}, "positions .*: not all are finite"),
        ({"dtype": "int8"}, "dtype=int8: choose"),
        ({"suspicious": "ignore"}, "suspicious=ignore: choose"),
        ({"threads": -1}, "threads=-1"),
        ({"run_dir": "runs/none"}, "give either run_dir"),
    ],
)
def test_impossible_jobs_are_refused_before_work(tmp_path, changes, message):
    job = {"sources": ["no-a", "no-b"], "method": "sma", "output": str(tmp_path / "out")} | changes
    with pytest.raises(ValueError, match=message):
        main(OmegaConf.structured(MergeJob(**job)))


def test_a_dry_run_only_prints_the_plan(tmp_path, snapshots_of_a_run, capsys):
    folders = snapshots_of_a_run(tmp_path, 2)
    sources = [str(folder) for folder in folders]
    main(OmegaConf.structured(MergeJob(sources=sources, output=str(tmp_path / "out"), dry_run=True)))
    printed = capsys.readouterr().out
    assert printed.count("  0.500000  ") == 2  # equal weights, where the job names none
    assert (
        "2 snapshots, weights sum to 1" in printed
        and "4 tensors, 454,437 parameters, stored as in the newest source; reads 1.8 MB" in printed
    )
    assert not (tmp_path / "out").exists()


def test_the_summary_says_type_and_size_and_no_command_that_would_fail(tmp_path, snapshots_of_a_run, capsys):
    folders = snapshots_of_a_run(tmp_path, 2)
    sources = [str(folder) for folder in folders]
    main(OmegaConf.structured(MergeJob(sources=sources, method="sma", output=str(tmp_path / "out"))))
    printed = capsys.readouterr().out
    assert "merged 2 snapshots into 1 model: types as in the newest source, 1 MB, in" in printed  # three floating types
    assert "next:" not in printed and "assets=" not in printed
    for folder in folders:
        (folder / "config.json").unlink()
    main(OmegaConf.structured(MergeJob(sources=sources, method="sma", dtype="float16", output=str(tmp_path / "bare"))))
    printed = capsys.readouterr().out
    assert "1 model: float16, 1 MB" in printed and "assets=FOLDER" in printed and "next:" not in printed
