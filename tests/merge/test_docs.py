"""The examples of docs/merging.md, run on tiny folders of the names that they use."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from pma import cli
from pma.config import CONF_DIR, register
from pma.files import MANIFEST

TEXT = (Path(__file__).parents[2] / "docs" / "merging.md").read_text(encoding="utf-8")
BLOCKS = [block.replace("\\\n", " ") for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", TEXT, re.MULTILINE)]
COMMANDS = [line.strip() for block in BLOCKS for line in block.splitlines() if line.strip().startswith("python -m")]
PYTHON = [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in BLOCKS if "import pma" in block]
PLACES = {"TOKENS": "4915200", "WARMUP": "245760"}


def composed(command: str, monkeypatch: pytest.MonkeyPatch) -> DictConfig:
    """The config of a command line, as the command would compose it."""
    _, _, module, *overrides = (word for word in shlex.split(command) if word != "...")
    started: list[tuple] = []
    monkeypatch.setattr(cli, "run", lambda *arguments: started.append(arguments))
    importlib.import_module(f"{module}.__main__").command()
    _, job, config_name, *folder = started[0]
    register(job)
    overrides = [re.sub("|".join(PLACES), lambda match: PLACES[match[0]], word) for word in overrides]
    with initialize_config_dir(str(CONF_DIR.joinpath(*folder)), version_base="1.3"):
        return compose(config_name, overrides)


@pytest.fixture
def folders(tmp_path, monkeypatch, model_folder):
    """The folders that the examples name, in the folder that they run in."""
    names = [f"ckpt/step-{step}" for step in (18000, 19000, 20000)]
    names += [f"EleutherAI/pythia-160m@step{step}" for step in (133000, 138000, 143000)]
    names += [f"run/iter_00{step}" for step in (18000, 19000, 20000)]
    names += [f"runs/cpu/moe_main-seed0/snapshots/tokens-{4915200 - i * 24576:015d}" for i in range(10)]
    for i, name in enumerate(names):
        model_folder(tmp_path / name, {"w": torch.tensor([1.0 + i, 2.0])})
    monkeypatch.chdir(tmp_path)


def test_there_are_examples():
    assert len(PYTHON) == 1 and len([line for line in COMMANDS if "pma.merge " in line]) == 3


@pytest.mark.parametrize("command", [line for line in COMMANDS if "pma.merge " in line])
def test_merging_as_the_docs_say(command, folders, monkeypatch):
    from pma.merge.__main__ import main

    job = composed(command, monkeypatch)
    main(job)
    for output in [job.output] if job.output else [merge.output for merge in job.merges]:
        assert len(json.loads((Path(output) / MANIFEST).read_text())["sources"]) >= 3


@pytest.mark.parametrize("command", [line for line in COMMANDS if "pma.merge " not in line])
def test_other_commands_of_the_docs_are_understood(command, monkeypatch):
    composed(command, monkeypatch)


@pytest.mark.parametrize("code", PYTHON)
def test_python_of_the_docs_runs(code, folders):
    exec(code, {})
    assert (Path("merged") / MANIFEST).is_file()
