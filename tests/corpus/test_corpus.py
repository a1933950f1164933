"""The corpus: built from stand-in archives that the tests make themselves, no network."""

from __future__ import annotations

import hashlib
import json
import random
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from transformers import AutoTokenizer

from pma.config import CONF_DIR, DataConfig
from pma.corpus import TokenDataset, prepare
from pma.corpus.clean import clean, pieces
from pma.corpus.generated import Question
from pma.corpus.items import CHOICES, corruptions, wrong_answers
from pma.corpus.overlap import Overlap
from pma.corpus.sources import EXTRACTORS, members

BENCHMARK_TEXT = "the quick brown fox jumps over a lazy dog while twelve red hens sit still and watch"
NOUNS = "river mountain garden window letter engine market castle forest harbour village kitchen".split()


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


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    _fill(folder)
    return folder


def _fill(data_dir: Path) -> None:
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


def _config(data_dir: Path, **changes: object) -> DataConfig:
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


@pytest.fixture(scope="module")
def corpus(data_dir: Path) -> Path:
    return prepare(_config(data_dir), data_dir)


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


def test_same_config_same_bytes_and_no_second_build(corpus: Path, data_dir: Path, tmp_path: Path, monkeypatch) -> None:
    before = (corpus / "manifest.json").stat().st_mtime_ns
    assert prepare(_config(data_dir), data_dir) == corpus
    assert (corpus / "manifest.json").stat().st_mtime_ns == before
    _fill(tmp_path)
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    other = prepare(_config(tmp_path), tmp_path)
    files = sorted(p.relative_to(corpus) for p in corpus.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
    assert all((corpus / f).read_bytes() == (other / f).read_bytes() for f in files)


def test_failed_build_leaves_nothing(data_dir: Path) -> None:
    config = _config(data_dir, name="failing", instruct={}, generated=[{"domain": "math", "max_bytes": 10, "items": 500,
                     "tasks": {"products": {"options": {"max_digits": 1}}}}])  # fmt: skip
    with pytest.raises(ValueError, match="too few distinct questions"):
        prepare(config, data_dir)
    assert not [p for p in (data_dir / "corpora").glob("*failing*") if p.is_dir()]


def test_wrong_archive_is_refused(data_dir: Path) -> None:
    config = _config(data_dir, name="wrong")
    config.sources[0].sha256 = "0" * 64
    with pytest.raises(ValueError, match=r"code==1: .*code\.zip has sha256 .*expected 0000.*delete"):
        prepare(config, data_dir)


def test_no_network_is_one_clear_message(data_dir: Path, monkeypatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    config = _config(data_dir, name="offline")
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
def test_impossible_configs_are_refused(data_dir: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(_config(data_dir, **changes), data_dir)


@given(seed=st.integers(0, 5), step=st.integers(0, 500), length=st.sampled_from([4, 8]), batch=st.integers(1, 5))
def test_batches_are_a_pure_function_of_seed_and_step(
    tmp_path_factory: pytest.TempPathFactory, seed: int, step: int, length: int, batch: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "tokens"
    if not folder.exists():
        folder.mkdir()
        for part in ("train", "instruct"):
            np.arange(203, dtype="<u2").tofile(folder / f"{part}.bin")
        (np.arange(203) % 3 == 0).astype(np.uint8).tofile(folder / "instruct.mask.bin")
        (folder / "manifest.json").write_text('{"dtype": "uint16"}')
    data = TokenDataset(folder, seed, length, batch)
    data.batch(step + 7)  # what was asked before must not matter
    inputs, targets = data.batch(step)
    assert inputs.dtype == targets.dtype == np.int64 and inputs.shape == targets.shape == (batch, length)
    assert np.array_equal(inputs, TokenDataset(folder, seed, length, batch).batch(step)[0])
    assert np.array_equal(inputs - inputs[:, :1], np.tile(np.arange(length), (batch, 1)))
    assert np.array_equal(targets, inputs + 1)  # the tokens of the file are 0, 1, 2, ...
    assert not (inputs[:, 0] % length).any()
    masked = TokenDataset(folder, seed, length, batch, "instruct").batch(step)
    assert np.array_equal(masked[0], inputs)
    assert np.array_equal(masked[1], np.where(targets % 3 == 0, targets, -100))
    epoch = [data.batch(s)[0][:, 0] for s in range(data.epoch_steps)]
    starts = np.concatenate(epoch)
    assert len(np.unique(starts)) == len(starts)  # no window twice an epoch
    with pytest.raises(ValueError, match="less than one batch"):
        TokenDataset(folder, seed, 64, 8)
    with pytest.raises(ValueError, match="has no part continued; set data.continued"):
        TokenDataset(folder, seed, length, batch, "continued")


@given(st.integers(-5000, 5000), st.integers(0, 9))
def test_wrong_numbers_are_near_and_wrong(value: int, seed: int) -> None:
    wrong = wrong_answers(Question("sum", "?", str(value)), [str(value), "17"], random.Random(seed))
    assert len(set(wrong)) == CHOICES - 1 and str(value) not in wrong
    if value:
        assert str(-value) in wrong and any(abs(int(w) - value) <= 10 for w in wrong)


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("?", "Yes", {"No"}),
        ("Ann likes tea. Bo likes milk. Cy hums. \nWho hums?", "Cy", {"Ann", "Bo", "father"}),
        ("?", "father", {"mother", "son", "wife"}),
    ],
)
def test_wrong_answers_have_the_form_of_the_answer(question: str, answer: str, expected: set[str]) -> None:
    others = ["father", "mother", "son", "wife"] if answer == "father" else ["father"]
    assert set(wrong_answers(Question("task", question, answer), others, random.Random(0))) == expected


@given(st.text("ab ;.", min_size=1, max_size=20), st.integers(0, 9))
def test_corruptions_are_other_orders_of_the_same_characters(text: str, seed: int) -> None:
    found = corruptions(text, random.Random(seed))
    assert len(set(found)) == len(found) <= 2 and text not in found
    assert all(sorted(other) == sorted(text) for other in found)


def test_wrong_lists_are_other_orders_and_one_with_an_element_twice() -> None:
    for seed in range(20):
        wrong = wrong_answers(Question("sort", "?", "3, 3, 1, 2"), [], random.Random(seed))
        assert len(set(wrong)) == 3 and "3, 3, 1, 2" not in wrong
        same = [sorted(w.split(", ")) == ["1", "2", "3", "3"] for w in wrong]
        assert same == [True, True, False]


def test_overlap_finds_a_13_gram_whatever_its_case_and_punctuation() -> None:
    index = Overlap({"set": [BENCHMARK_TEXT, "too short"]})
    words = BENCHMARK_TEXT.split()
    assert index.check("before " + " - ".join(words[2:15]).upper() + " after")
    assert not index.check(" ".join([*words[:12], "other", *words[13:]]))
    assert not index.check("")
    assert index.report() == {"set": {"items": 2, "under_13_words": 1, "hit": 1}}


def test_clean() -> None:
    assert clean("a\r\nb \t\n\n\n\n\n\nc\x00\x1b<|endoftext|>" + "d" * 40) == "a\nb\n\n\nc" + "d" * 40
    assert clean("too short") == ""


@given(st.lists(st.text("ab", min_size=1, max_size=30), min_size=1, max_size=30), st.integers(10, 60))
def test_pieces_keep_every_character_within_the_limit(paragraphs: list[str], limit: int) -> None:
    cut = list(pieces("\n\n".join(paragraphs), limit))
    assert "".join(cut).replace("\n", "") == "".join(paragraphs)
    assert all(len(piece) <= max(limit, 30) for piece in cut)


def test_python_is_cut_before_definitions(tmp_path: Path) -> None:
    body = "    work = step\n" * 190
    text = "# Copyright: somebody\n" + "\n\n".join(f"@decorator\ndef function_{n}():\n{body}" for n in range(6))
    table = "VALUES = [\n" + "    1.5, 2.5, 3.5,\n" * 200 + "]\n"
    _write_zip(tmp_path / "code.zip", {"a.py": text, "table.py": table, "b.txt": "not Python"})
    units = {name: list(read()) for name, read in EXTRACTORS["python"](tmp_path / "code.zip", None)}
    assert list(units) == ["a.py", "table.py"] and units["table.py"] == []
    assert len(units["a.py"]) == 3 and all(piece.startswith("@decorator\ndef ") for piece in units["a.py"])
    assert list(members(tmp_path / "code.zip", "*.txt")) == ["b.txt"]


@pytest.mark.parametrize("name", ["smoke", "cpu", "gpu", "hub"])
def test_shipped_configs_fit_the_schema(name: str) -> None:
    config = OmegaConf.merge(OmegaConf.structured(DataConfig), OmegaConf.load(CONF_DIR / "data" / f"{name}.yaml"))
    assert config.name == name
    for source in [*config.sources, *config.benchmarks]:
        assert source.extract in EXTRACTORS and len(source.sha256) == 64
        assert source.version in source.file
