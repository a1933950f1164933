"""README, CONTRIBUTING and docs: links lead somewhere, marked blocks run, all other commands are understood."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from markdown_files import DOCUMENTS, ROOT, anchors, blocks, links
from safetensors.numpy import save_file

from pma import cli
from pma.config import CONF_DIR, register

PLACES = {"TOKENS": "4915200", "WARMUP": "245760", "END": "4915200", ":V": ":24576"}  # of numbers in examples
CHECKPOINTS = re.compile(r"[\w./-]*\b(?:step-|step|iter_)\d+\b|\b\w+/[\w.-]+@step\d+|\bcheckpoint-\d+\b")
OPTIONS = {"-m", "--multirun", "--help", "--cfg", "job", "--resolve"}


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lines(start: str) -> list[tuple[str, str]]:
    """Lines that begin so, of all blocks that do not run, with the document they stand in."""
    found = []
    for path in DOCUMENTS:
        for block in blocks(path):
            found += [(named(path), line) for line in block.lines if not block.runs and re.match(start, line)]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_every_relative_link_leads_somewhere(path):
    for link in links(path):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), f"{named(path)}: {link}: no such file"
        if anchor:
            assert anchor in anchors(file), f"{named(path)}: {link}: no such heading there"


# ---- marked blocks


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of what a user has after `make setup`, in which examples may write; text and packages are shared."""
    ignore = shutil.ignore_patterns("out")  # __pycache__ comes along: it holds the compiled kernels of a merge
    for name in ("src", "conf", "analysis"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    (ROOT / "data").mkdir(exist_ok=True)
    (tmp_path / "data").symlink_to(ROOT / "data")
    return tmp_path


def make_checkpoints(text: str, folder: Path) -> None:
    """The checkpoints that examples name, as tiny models, and the snapshots of the main run's last window."""
    names = set(CHECKPOINTS.findall(text))
    names |= {f"runs/cpu/moe_main-seed0/snapshots/tokens-{4915200 - i * 24576:015d}" for i in range(10)}
    for i, name in enumerate(sorted(names)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        weights = folder / name / "model.safetensors"
        save_file({"w": np.array([1.0 + i, 2.0], np.float32)}, weights)
        os.utime(weights, (0, 0))  # written long ago, so surely complete


def in_order(path: Path) -> str:
    """The blocks that run, as one shell script that stops at the first error."""
    script = ["set -euo pipefail"]
    for block in blocks(path):
        if block.runs:
            assert block.language in ("bash", "python"), f"{named(path)}: name the language of a block that runs"
            script.append(block.text if block.language == "bash" else f"python -c {shlex.quote(block.text)}")
    return "\n".join(script)


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if any(block.runs for block in blocks(path))], ids=named)
def test_marked_blocks_run(path, clone):
    script = in_order(path)
    if path.name == "merging.md":  # the other documents make what they name
        make_checkpoints(script, clone)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(clone / "src"),
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "disabled",
    }
    done = subprocess.run(
        ["bash", "-c", script], cwd=clone, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_the_examples_that_matter_most_are_marked():
    marked = {named(path) for path in DOCUMENTS if any(block.runs for block in blocks(path))}
    assert {"README.md", "docs/merging.md", "docs/extending.md"} <= marked


# ---- all other blocks


@pytest.mark.parametrize(("document", "line"), lines(r"(?:[A-Z_]+=\S+ )*python -m pma\."))
def test_commands_are_understood(document, line, monkeypatch):
    """Each is composed as the command would compose it; nothing is run."""
    words = [word for word in shlex.split(line) if word != "..." and word not in OPTIONS]
    start = words.index("-m") if "-m" in words else next(i for i, word in enumerate(words) if word.startswith("pma."))
    module, overrides = words[start], words[start + 1 :]
    started: list[tuple] = []
    monkeypatch.setattr(cli, "run", lambda *arguments: started.append(arguments))
    package = module if (ROOT / "src" / (module.replace(".", "/") + ".py")).exists() else f"{module}.__main__"
    importlib.import_module(package).command()
    _, job, config_name, *folder = started[0]
    register(job)
    overrides = [re.sub("|".join(PLACES), lambda match: PLACES[match[0]], word) for word in overrides]
    if "-m" in shlex.split(line)[3:]:
        overrides = [first_of(word) for word in overrides]
    with initialize_config_dir(str(CONF_DIR.joinpath(*folder)), version_base="1.3"):
        compose(config_name, overrides)


def first_of(word: str) -> str:
    """An override of a sweep, with the first of its values."""
    override = OverridesParser.create().parse_override(word)
    if not override.is_sweep_override():
        return word
    return f"{override.get_key_element()}={next(override.sweep_string_iterator())}"


def test_every_target_of_make_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    targets |= {f"reproduce-{path.stem.replace('_', '-')}" for path in (CONF_DIR / "experiment").glob("*.yaml")}
    targets |= {"reproduce-NAME", "reproduce-hot"}  # of a user's own
    for document, line in lines(r"make [a-z]"):
        for word in line.split(";")[0].split()[1:]:
            assert "=" in word or word in targets, f"{document}: {line}: no target {word}"


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        '# A `b` title\n\n[x](other.md#there) ![y](y.svg)\n\n<a id="c1"></a>\n\n<!-- run -->\n```bash\nls # all\n```\n'
    )
    assert list(links(page)) == ["other.md#there", "y.svg"]
    assert anchors(page) == {"a-b-title", "c1"}
    assert [(block.language, block.lines, block.runs) for block in blocks(page)] == [("bash", ["ls"], True)]
