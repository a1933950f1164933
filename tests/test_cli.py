"""The command line: mistakes are answered in one line with the mend, and no text waits for heavy imports."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pma import cli
from pma.config import CONF_DIR
from pma.hints import explain, missing_package
from pma.merge.__main__ import MergeJob
from pma.reproduce.job import ReproduceJob

HEAVY = ("torch", "transformers", "pandas", "numba", "numpy", "wandb", "tokenizers", "lm_eval", "matplotlib")
COMMANDS = ("corpus", "engine", "evaluate", "merge", "plan", "replay", "reproduce", "train", "watch")


def answer(monkeypatch, job: type, config_name: str, folder: str, *arguments: str) -> str:
    """What a command line ends with."""
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda job: None, job, config_name, folder)
    (line,) = str(ended.value).splitlines()
    return line


@pytest.mark.parametrize(
    "arguments,expected",
    [
        (["metod=sma"], "error: metod: no such key; did you mean method?"),
        (["tracking.modee=off"], "error: tracking.modee: no such key; did you mean tracking.mode?"),
        (["qqqqqq=1"], "error: qqqqqq: no such key; --help lists all keys"),
        (["merges=[{metod: sma}]"], "error: merges: Key 'metod' not in 'MergeRecipeConfig'"),
        (["n=ten"], "error: n=ten: Value 'ten' of type 'str' could not be converted to Integer"),
        (["sources=A"], "error: sources=A: sources is a list; write 'sources=[A]'"),
        (["sources=A", "sources=B"], "error: sources=A: sources is a list; write 'sources=[A,B]'"),
        (["sources=A,B"], "error: sources=A,B: several values; write 'sources=[A,B]', or sweep over them with -m"),
        (
            ["sources=A", "B", "C", "output=O"],
            "error: B: not KEY=VALUE; if it belongs to sources, write 'sources=[A,B,C]'",
        ),
        (["A"], "error: A: not KEY=VALUE; --help lists all keys"),
        (["weights=0.5"], "error: weights=0.5: weights is a list; write 'weights=[0.5]'"),
    ],
)
def test_a_mistyped_merge_is_answered_with_what_to_write(monkeypatch, arguments, expected):
    assert answer(monkeypatch, MergeJob, "merge", "command", *arguments) == expected


def test_a_pattern_of_names_is_answered_with_a_list_in_order_of_numbers(monkeypatch, tmp_path):
    line = answer(monkeypatch, MergeJob, "merge", "command", "sources=step-*")
    written = line.partition("write ")[2].strip('"')
    for name in ("step-1000", "step-200"):
        (tmp_path / name).mkdir()
    shell = subprocess.run(
        ["bash", "-c", f'echo "{written}"'], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert shell.stdout.strip() == "sources=[step-200,step-1000]"


def _interrupted(*arguments):
    raise KeyboardInterrupt


def _fails_while_it_is_interrupted(*arguments):
    try:
        raise KeyboardInterrupt
    finally:
        raise UnboundLocalError("as Hydra's reading of a config does")


@pytest.mark.parametrize("start", [cli._start, _fails_while_it_is_interrupted])
def test_ctrl_c_ends_in_one_line(monkeypatch, capsys, start):
    monkeypatch.setattr(cli, "_start", start)
    monkeypatch.setattr(sys, "argv", ["command", "sources=[A]"])
    with pytest.raises(SystemExit) as ended:
        cli.run(_interrupted, MergeJob, "merge", "command")
    assert ended.value.code == 130 and capsys.readouterr().err.splitlines() == [
        "interrupted; what was published is kept, and the same command goes on from it"
    ]


def test_a_mistyped_choice_or_a_key_without_its_group_is_answered_with_the_nearest(monkeypatch):
    answers = {
        "experiment=figure_44": "experiment=figure_44: no such choice; did you mean figure_4?",
        "log_interval=3": "log_interval: no such key; did you mean scale.log_interval?",
        "sclae=gpu": "sclae: no such key; did you mean scale?",
        "seeds=0": "seeds=0: seeds is a list; write 'seeds=[0]'",
    }
    for argument, expected in answers.items():
        assert answer(monkeypatch, ReproduceJob, "reproduce", "", argument) == f"error: {expected}"


def test_a_mistyped_key_of_a_sweep_is_answered_the_same(monkeypatch):
    line = answer(monkeypatch, ReproduceJob, "reproduce", "", "-m", "seeds=[0],[1]", "jbos=3", "hydra/launcher=basic")
    assert line == "error: jbos: no such key; did you mean jobs?"


def test_what_hydra_says_of_a_job_of_a_sweep_is_kept():
    assert explain(ValueError("error: no room"), CONF_DIR, "config", []) == "error: no room"


def test_a_missing_package_is_answered_with_the_extra_that_installs_it():
    assert missing_package(ModuleNotFoundError(name="torch.nn")) == (
        "torch is not installed, and this needs it: pip install 'pma[train]'"
    )
    assert "'pma[hub]'" in missing_package(ModuleNotFoundError(name="huggingface_hub"))
    assert missing_package(ModuleNotFoundError(name="pma.nothing")) is None


def test_help_completion_and_import_wait_for_nothing_heavy():
    """All commands in one process, which then says what was imported."""
    code = f"""
import contextlib, importlib, io, json, os, sys, pma
before = [name for name in {HEAVY} if name in sys.modules]
texts = {{}}
for name in {COMMANDS}:
    module = f"pma.{{name}}" if name in ("engine", "replay") else f"pma.{{name}}.__main__"
    for arguments in (["--help"], ["-sc", "query=bash"]):
        os.environ["COMP_LINE"] = f"pma-{{name}} tra"
        sys.argv = [f"pma-{{name}}", *arguments]
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
            importlib.import_module(module).command()
        texts[f"{{name}} {{arguments[0]}}"] = out.getvalue()
print(json.dumps([before, [name for name in {HEAVY} if name in sys.modules], texts]))
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after, texts = json.loads(process.stdout)
    assert before == [] and after == []
    for name in COMMANDS:
        assert "Examples:" in texts[f"{name} --help"] and "Keys and their values" in texts[f"{name} --help"]
    assert "run: annealed" in texts["train --help"] and "Groups" not in texts["merge --help"]
    assert texts["train -sc"].split() == ["tracking.", "tracking=", "train."]
