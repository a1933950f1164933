"""The corpus of packages: what is in it, what is not, and that the same config gives the same bytes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from transformers import AutoTokenizer

from pma.config import CONF_DIR, DataConfig
from pma.corpus.build import prepare
from pma.corpus.extract import EXTRACTORS
from pma.corpus.items import CHOICES
from pma.corpus.workers import workers


def _jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _documents(corpus: Path, part: str = "train") -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(corpus / "tokenizer")
    tokens = np.fromfile(corpus / f"{part}.bin", dtype="<u2").tolist()
    assert tokens[-1] == tokenizer.eos_token_id
    return tokenizer.decode(tokens).split("<|endoftext|>")[:-1]


def test_train_bin_holds_the_documents_the_manifest_counts(corpus: Path) -> None:
    manifest = json.loads((corpus / "manifest.json").read_text())
    documents = _documents(corpus)
    assert len(documents) == sum(domain["train"]["documents"] for domain in manifest["domains"].values())
    assert sum(len(d.encode()) for d in documents) == sum(d["train"]["bytes"] for d in manifest["domains"].values())
    assert manifest["parts"]["train"]["tokens"] == (corpus / "train.bin").stat().st_size // 2
    assert all(re.fullmatch(r"(\w+?)\d+ \(noun\): A \1 of .*\.", d) for d in documents if " (noun): " in d)
    assert manifest["duplicates_removed"]["code"] == 1  # the twin


def test_continued_training_sees_documents_that_the_base_run_does_not(corpus: Path) -> None:
    documents, continued = _documents(corpus), _documents(corpus, "continued")
    assert continued and all(" (noun): A " in document for document in continued)
    assert not set(documents) & set(continued)
    manifest = json.loads((corpus / "manifest.json").read_text())
    size = sum(len(document.encode()) for document in continued)
    assert manifest["domains"]["dictionary"]["continued"]["bytes"] == size
    assert 3000 <= size < 3100


def test_instructions_are_new_and_only_their_completions_are_learnt(corpus: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(corpus / "tokenizer")
    tokens = np.fromfile(corpus / "instruct.bin", dtype="<u2")
    learnt = np.fromfile(corpus / "instruct.mask.bin", dtype=np.uint8)
    assert len(tokens) == len(learnt) and set(learnt) == {0, 1}
    starts = np.flatnonzero(np.diff(learnt.astype(int), prepend=1) == -1)  # from learnt to not learnt
    given = [tokenizer.decode(part[mask == 0]) for part, mask in _at(starts, tokens, learnt)]
    learned = [tokenizer.decode(part[mask == 1]) for part, mask in _at(starts, tokens, learnt)]
    manifest = json.loads((corpus / "manifest.json").read_text())
    assert len(given) == manifest["instruct"]["pairs"] and int(learnt.sum()) == manifest["instruct"]["learnt"]
    assert all(re.fullmatch(r"Instruction: (.|\n)+\nResponse:", prompt) for prompt in given)
    assert all(re.fullmatch(r" [^\n]+<\|endoftext\|>", completion) for completion in learned)

    completion = dict(zip(given, learned, strict=True))
    words = {m[1] for prompt in given if (m := re.search(r"What does (\w+) \(noun\) mean", prompt))}
    bases = {d.split(" (")[0] for part in ("train", "continued") for d in _documents(corpus, part)}
    assert words and not words & bases
    assert all(" A " in completion[p] for p in given if "What does" in p)
    assert any(re.search(r"Reply\.\nA: The \w+ of day 0 .*\nB: .* day 1 ", prompt) for prompt in given)
    items = [
        row["context"] for axis in ("math", "knowledge") for row in _jsonl(corpus / f"items/instruct/{axis}.jsonl")
    ]
    assert items and not set(items) & set(given)


def _at(starts: np.ndarray, *arrays: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    return list(zip(*(np.split(array, starts)[1:] for array in arrays), strict=True))


def test_heldout_and_items_are_disjoint_from_training(corpus: Path) -> None:
    documents = _documents(corpus)
    train_words = {d.split(" (")[0] for d in documents if " (noun): " in d}
    assert train_words.isdisjoint(
        row["context"].split(" (")[0] for row in _jsonl(corpus / "items/proxy/knowledge.jsonl")
    )
    for domain in ("code", "dictionary", "math"):
        texts = [row["text"] for row in _jsonl(corpus / "heldout" / f"{domain}.jsonl")]
        assert texts and sum(len(t.encode()) for t in texts) <= 2000
        assert not set(texts) & set(documents)
    questions = {line for d in documents for line in d.split("\n") if line.startswith("Q: ")}
    assert questions and not any(
        row["context"].split("\n")[0] in questions for row in _jsonl(corpus / "items/proxy/math.jsonl")
    )


@pytest.mark.parametrize(
    ("axis", "count"),
    [("proxy/code", 10), ("proxy/knowledge", 10), ("proxy/math", 8)]
    + [(f"instruct/{axis}", 4) for axis in ("math", "knowledge", "dialogue", "ood")],
)
def test_items_have_distinct_choices_and_spread_answers(corpus: Path, axis: str, count: int) -> None:
    rows = _jsonl(corpus / "items" / f"{axis}.jsonl")
    assert len(rows) == count
    for row in rows:
        assert len(set(row["choices"])) == len(row["choices"]) == CHOICES
        assert 0 <= row["answer"] < CHOICES
        assert all(choice[0] in " \n" for choice in row["choices"]) and row["context"][-1] not in " \n"
    assert len({row["answer"] for row in rows}) > 1


def test_documents_that_overlap_a_benchmark_are_dropped(corpus: Path) -> None:
    report = json.loads((corpus / "overlap.json").read_text())
    assert report["sets"]["bench"] == {"items": 1, "under_13_words": 0, "hit": 1}
    assert report["train_documents_dropped"]["code"] >= 1
    assert not any("BROWN FOX" in document for document in _documents(corpus))


def test_same_config_same_bytes_and_no_second_build(
    corpus: Path, data_dir: Path, make_config, tmp_path: Path, monkeypatch
) -> None:
    before = (corpus / "manifest.json").stat().st_mtime_ns
    assert prepare(make_config(data_dir), data_dir) == corpus
    assert (corpus / "manifest.json").stat().st_mtime_ns == before
    (tmp_path / "downloads").symlink_to(data_dir / "downloads")
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    monkeypatch.setattr(os, "fork", None)  # a forked worker could wait forever for a lock that a thread held
    other = prepare(make_config(data_dir), tmp_path, processes=2)
    files = sorted(p.relative_to(corpus) for p in corpus.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
    assert all((corpus / f).read_bytes() == (other / f).read_bytes() for f in files)


def test_workers_that_read_packages_do_not_import_torch() -> None:
    loaded = "__import__('pma.corpus.extract', fromlist='x') and sorted(__import__('sys').modules)"
    with workers(1) as pool:
        modules = pool.submit(eval, loaded).result()
    assert "pma.corpus.extract" in modules and not {"torch", "transformers"} & set(modules)


def test_failed_build_leaves_nothing(data_dir: Path, make_config) -> None:
    tasks = {"products": {"options": {"max_digits": 1}}}
    generated = [{"domain": "math", "max_bytes": 10, "items": 500, "tasks": tasks}]
    config = make_config(data_dir, name="failing", instruct={}, generated=generated)
    with pytest.raises(ValueError, match="too few distinct questions"):
        prepare(config, data_dir)
    assert not [p for p in (data_dir / "corpora").glob("*failing*") if p.is_dir()]


def test_wrong_archive_is_refused(data_dir: Path, make_config) -> None:
    config = make_config(data_dir, name="wrong")
    config.sources[0].sha256 = "0" * 64
    with pytest.raises(ValueError, match=r"code==1: .*code\.zip has sha256 .*expected 0000.*delete"):
        prepare(config, data_dir)


def test_no_network_is_one_clear_message(data_dir: Path, make_config, monkeypatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    config = make_config(data_dir, name="offline")
    config.sources[0].file = "absent.zip"
    with pytest.raises(ConnectionError, match=r"cannot download absent\.zip.*run the same command again"):
        prepare(config, data_dir)
    assert not list((data_dir / "downloads").glob("*absent*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 100}, "vocab_size=100"),
        ({"heldout_fraction": 0.0}, "heldout_fraction=0.0"),
        (
            {"instruct": {"bytes": {"code": 5}}},
            r"data\.instruct\.bytes\.code: give a domain of data\.generated, or dict",
        ),
        ({"continued": {"dictionary": 10**6}}, r"data\.continued\.dictionary: the corpus has \d+ bytes less than that"),
    ],
)
def test_impossible_configs_are_refused(data_dir: Path, make_config, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(make_config(data_dir, **changes), data_dir)


@pytest.mark.parametrize("name", ["smoke", "cpu", "gpu", "hub"])
def test_shipped_configs_fit_the_schema(name: str) -> None:
    config = OmegaConf.merge(OmegaConf.structured(DataConfig), OmegaConf.load(CONF_DIR / "data" / f"{name}.yaml"))
    assert config.name == name
    for source in [*config.sources, *config.benchmarks]:
        assert source.extract in EXTRACTORS and len(source.sha256) == 64
        assert source.version in source.file
