"""Stand-ins for the package index and the hub: archives and files that the tests write themselves, no network."""

from __future__ import annotations

import hashlib
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig, OmegaConf

from pma.config import DataConfig
from pma.corpus.build import prepare

BENCHMARK_TEXT = "the quick brown fox jumps over a lazy dog while twelve red hens sit still and watch"
NOUNS = "river mountain garden window letter engine market castle forest harbour village kitchen".split()
WORDS = [*NOUNS, "of", "and", "under"]


def _module(number: int) -> str:
    lines = [f'"""Module number {number} of the stand-in package."""', ""]
    for function in range(6):
        noun = NOUNS[(number + function) % len(NOUNS)]
        lines += ["", f"def count_{noun}_{number}_{function}(items, limit={function + 2}):"]
        lines += [f"    total_{noun} = {number} + {function}", "    for position, item in enumerate(items):"]
        lines += [f"        if position > limit * {number}:", f"            total_{noun} += item.{noun}_{function}"]
        lines += [f"    result_{noun} = total_{noun} - {function}", f"    return result_{noun} * {number + 1}", ""]
    return "\n".join(lines) + "\n"


def _write_zip(path: Path, files: dict[str, str]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)


def write_archives(data_dir: Path) -> None:
    """Packages of code, dictionary words, conversations and a benchmark."""
    downloads = data_dir / "downloads"
    downloads.mkdir(parents=True)
    code = {f"pkg/module_{n}.py": _module(n) for n in range(40)}
    for n in range(6):  # one of them at least is not held out
        code[f"pkg/contaminated_{n}.py"] = f'"""Docstring {n}: {BENCHMARK_TEXT.upper()}."""\nvalue = {n}\n'
    code["pkg/twin_a.py"] = code["pkg/twin_b.py"] = 'GREETING = "the same file stands here twice"\n'
    _write_zip(downloads / "code.zip", code)
    words = {
        f"{noun}{n}": {
            "entry": f"{noun}{n}",
            "pos": [
                {
                    "part_of_speech": "n.",
                    "definitions": [{"text": f"A {noun} of the kind {n}, seen by travellers [Obs.]", "examples": []}],
                }
            ],
        }
        for noun in NOUNS
        for n in range(20)
    }
    _write_zip(downloads / "words.zip", {"dictionary/words_A.json": json.dumps(words)})
    talk = {
        f"conversation{n}": {
            "messages": [
                [{"sender": f"person{turn % 2}", "text": f"The {NOUNS[(n + turn) % 12]} of day {turn} is number {n}."}]
                for turn in range(9)
            ]
        }
        for n in range(30)
    }
    _write_zip(downloads / "talk.zip", {"chitchat/dataset.json": json.dumps(talk)})
    _write_zip(downloads / "bench.zip", {"bench/test.jsonl": json.dumps({"question": BENCHMARK_TEXT, "id": 3})})


def package_config(data_dir: Path, **changes: object) -> DictConfig:
    """A data config of the archives in a data_dir."""

    def source(name: str, domain: str, extract: str, pattern: str | None = None) -> dict[str, object]:
        raw = (data_dir / "downloads" / f"{name}.zip").read_bytes()
        identity = {"package": name, "version": "1", "file": f"{name}.zip", "sha256": hashlib.sha256(raw).hexdigest()}
        return {**identity, "domain": domain, "extract": extract, "members": pattern}

    values = {
        "name": "stand-in",
        "vocab_size": 320,
        "heldout_fraction": 0.2,
        "heldout_bytes": 2000,
        "axis_items": 10,
        "sources": [
            source("code", "code", "python"),
            source("words", "dictionary", "gcide"),
            source("talk", "dialogue", "chitchat"),
        ],
        "generated": [
            {"domain": "math", "max_bytes": 5000, "items": 8, "tasks": {"chain_sum": {"options": {"max_terms": 2}}}}
        ],
        "benchmarks": [source("bench", "bench", "jsonl", "*.jsonl")],
        "continued": {"dictionary": 3000},
        "instruct": {
            "bytes": {"math": 1500, "dialogue": 1500, "dictionary": 1500},
            "items": 4,
            "unseen": {"spell_backward": {"options": {"max_word_len": 6}}},
        },
    }
    return OmegaConf.merge(OmegaConf.structured(DataConfig), values, changes)


def _page(number: int) -> str:
    words = random.Random(number)
    return f"Page {number}.\n" + " ".join(words.choice(WORDS) for _ in range(words.randrange(20, 80)))


@pytest.fixture(scope="session")
def hub_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders web and notes for the hub, and bench.zip for the package index."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "web").mkdir()
    for file in range(5):
        texts = [_page(100 * file + number) for number in range(60)]
        texts += [texts[file], f"Seen elsewhere: {BENCHMARK_TEXT.upper()}!", "short", None]
        lines = [json.dumps({"text": text, "id": number}) for number, text in enumerate(texts)]
        (folder / "web" / f"{file}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "notes").mkdir()
    pages = pa.table({"body": [_page(1000 + number) for number in range(90)]})
    pq.write_table(pages, folder / "notes" / "all.parquet", row_group_size=15)
    with zipfile.ZipFile(folder / "bench.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("bench/test.jsonl"), json.dumps({"question": BENCHMARK_TEXT}))
    return folder


def hub_config(files: Path, **changes: object) -> DictConfig:
    """A data config of `hub_files`: generated text mixed with two data sets."""

    bench = {"package": "bench", "version": "1", "file": "bench.zip", "domain": "bench", "extract": "jsonl"}
    bench |= {"sha256": hashlib.sha256((files / "bench.zip").read_bytes()).hexdigest(), "members": "*.jsonl"}
    web = {"path": str(files / "web"), "revision": "local", "weight": 5, "sample_bytes": 20_000}
    notes = {"path": str(files / "notes"), "revision": "local", "weight": 2, "domain": "notes", "shards": 3}
    values = {
        "name": "mixed",
        "vocab_size": 300,
        "heldout_fraction": 0.1,
        "heldout_bytes": 2000,
        "benchmarks": [bench],
        "generated": [{"domain": "math", "max_bytes": 5000, "tasks": {"chain_sum": {"options": {"max_terms": 2}}}}],
        "weight": 1,
        "hub": [web, notes | {"text_field": "body", "sample_bytes": 4000}],
    }
    return OmegaConf.merge(OmegaConf.structured(DataConfig), values, changes)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data_dir with the archives in downloads/."""
    folder = tmp_path_factory.mktemp("data")
    write_archives(folder)
    return folder


@pytest.fixture(scope="session")
def make_config() -> Callable[..., DictConfig]:
    """make_config(data_dir, **changes): of packages."""
    return package_config


@pytest.fixture(scope="session")
def make_hub_config() -> Callable[..., DictConfig]:
    """make_hub_config(hub_files, **changes)."""
    return hub_config


@pytest.fixture(scope="session")
def corpus(data_dir: Path) -> Path:
    """The corpus of the packages."""
    return prepare(package_config(data_dir), data_dir)


def _data_dir_of(folder: Path, files: Path) -> Path:
    (folder / "downloads").mkdir(parents=True)
    (folder / "downloads" / "bench.zip").write_bytes((files / "bench.zip").read_bytes())
    return folder


@pytest.fixture
def hub_data_dir(tmp_path: Path, hub_files: Path) -> Path:
    """A fresh data_dir for `hub_config`."""
    return _data_dir_of(tmp_path / "data", hub_files)


@pytest.fixture(scope="session")
def mixed_corpus(hub_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of `hub_config`."""
    return prepare(hub_config(hub_files), _data_dir_of(tmp_path_factory.mktemp("mixed"), hub_files), processes=1)


@pytest.fixture(scope="session")
def write_zip() -> Callable[[Path, dict[str, str]], None]:
    """write_zip(path, texts by name)."""
    return _write_zip


@pytest.fixture(scope="session")
def benchmark_text() -> str:
    """The benchmark's only item, which some training documents hold too."""
    return BENCHMARK_TEXT
