"""Data sets of the hub, by local folders: shards made side by side, resumed and mixed by weights."""

from __future__ import annotations

import hashlib
import json
import random
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from transformers import AutoTokenizer

from pma.config import CONF_DIR, DataConfig, register
from pma.corpus import TokenDataset, mixing_weights, prepare, prepare_part
from pma.corpus.clean import clean
from pma.corpus.hub import is_heldout
from pma.corpus.mix import ROUND, Mix, permuted, round_counts
from pma.train.loop import train

ITEM = "the quick brown fox jumps over a lazy dog while twelve red hens sit still and watch"
WORDS = "river mountain garden window letter engine market castle forest harbour village kitchen of and under".split()
SHARDS = 8  # five files of JSON Lines; a parquet file of six row groups, dealt out to three


def _page(number: int) -> str:
    words = random.Random(number)
    return f"Page {number}.\n" + " ".join(words.choice(WORDS) for _ in range(words.randrange(20, 80)))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands in for the hub and for the package index."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "web").mkdir()
    for file in range(5):
        texts = [_page(100 * file + number) for number in range(60)]
        texts += [texts[file], f"Seen elsewhere: {ITEM.upper()}!", "short", None]
        lines = [json.dumps({"text": text, "id": number}) for number, text in enumerate(texts)]
        (folder / "web" / f"{file}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "notes").mkdir()
    pages = pa.table({"body": [_page(1000 + number) for number in range(90)]})
    pq.write_table(pages, folder / "notes" / "all.parquet", row_group_size=15)
    with zipfile.ZipFile(folder / "bench.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("bench/test.jsonl"), json.dumps({"question": ITEM}))
    return folder


def _config(files: Path, **changes: object) -> DictConfig:
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


def _data_dir(folder: Path, files: Path) -> Path:
    (folder / "downloads").mkdir(parents=True)
    (folder / "downloads" / "bench.zip").write_bytes((files / "bench.zip").read_bytes())
    return folder


@pytest.fixture(scope="module")
def corpus(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(_config(files), _data_dir(tmp_path_factory.mktemp("one"), files), processes=1)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _manifest(corpus: Path) -> dict:
    return json.loads((corpus / "manifest.json").read_text())


def _documents(corpus: Path, source: int) -> list[str]:
    """Documents of a data set, cut where the indexes say that they end."""
    tokenizer, texts = AutoTokenizer.from_pretrained(corpus / "tokenizer"), []
    for shard in _manifest(corpus)["hub"][source]["shards"]:
        path = corpus / shard["file"]
        tokens, ends = np.fromfile(path, "<u2"), np.fromfile(path.with_suffix(".idx"), "<u8").astype(int)
        assert ends[-1] == len(tokens) == shard["tokens"] and len(ends) == shard["documents"]
        assert np.array_equal(np.flatnonzero(tokens == tokenizer.eos_token_id) + 1, ends)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == shard["sha256"]
        texts += [tokenizer.decode(part[:-1]) for part in np.split(tokens, ends[:-1])]
    return texts


def test_shards_hold_every_document_but_those_held_out_overlapping_or_twice(corpus: Path, files: Path) -> None:
    manifest = _manifest(corpus)
    rows = [json.loads(line)["text"] for file in range(5) for line in (files / "web" / f"{file}.jsonl").open()]
    pages = pq.read_table(files / "notes").column("body").to_pylist()
    for source, (count, texts) in enumerate([(5, rows), (3, pages)]):
        about = manifest["hub"][source]
        assert [shard["file"] for shard in about["shards"]] == [f"hub/{source}/{n:05d}.bin" for n in range(count)]
        cleaned = list(dict.fromkeys(filter(None, (clean(text or "") for text in texts))))
        expected = [text for text in cleaned if not is_heldout(text, 0, 0.1) and ITEM.upper() not in text]
        assert _documents(corpus, source) == expected and 0 < len(expected) < len(cleaned)
        assert about["documents"] == len(expected) and about["bytes"] == sum(len(text.encode()) for text in expected)
        assert about["tokens"] == manifest["domains"][about["domain"]]["train"]["tokens"]
        held = (corpus / "heldout" / f"{about['domain']}.jsonl").read_text()
        assert held and not [text for text in expected if json.dumps(text[:40])[1:-1] in held]
    assert manifest["hub"][0]["left_out"]["overlapping"] + manifest["hub"][0]["left_out"]["heldout"] >= 5
    assert json.loads((corpus / "overlap.json").read_text())["hub"]["sets"]["bench"]["hit"] == 1


def test_two_calls_of_two_processes_give_the_same_bytes(corpus: Path, files: Path, tmp_path: Path) -> None:
    data_dir = _data_dir(tmp_path, files)
    assert prepare_part(_config(files), data_dir, 1, 2, processes=2) is None
    assert not (data_dir / "corpora" / corpus.name).exists()
    # Weights say how a corpus is read: with others it is the same one.
    other = prepare_part(_config(files, weight=3), data_dir, 0, 2, processes=2)
    assert other is not None and other.name == corpus.name and _contents(other) == _contents(corpus)
    assert not any((data_dir / "building").iterdir())


def test_a_killed_build_goes_on_with_the_missing_shards(corpus: Path, files: Path, tmp_path: Path) -> None:
    data_dir, config = _data_dir(tmp_path, files), _config(files)
    assert prepare_part(config, data_dir, 0, SHARDS, processes=1) is None
    done = data_dir / "building" / corpus.name / "done"
    with ThreadPoolExecutor(1) as pool, FileLock(done / "0" / "00003.lock"):  # the build waits there
        building = pool.submit(prepare, config, data_dir, 1)
        deadline = time.monotonic() + 60
        while len(list(done.glob("*/*.json"))) < 3 and time.monotonic() < deadline and not building.done():
            time.sleep(0.02)
        for child in psutil.Process().children():
            for worker in child.children():  # of the fork server
                worker.kill()
        with pytest.raises(ValueError, match="was killed, .*run the same command again; finished shards are kept"):
            building.result()
    before = {path.name: path.stat().st_mtime_ns for path in done.glob("0/*.json")}
    assert sorted(before) == ["00000.json", "00001.json", "00002.json"]
    (done.parent / "corpus" / "hub" / "0" / ".00003.bin.partial-host-1").write_bytes(b"half")
    assert prepare_part(config, data_dir, 3, SHARDS, processes=1) is None
    assert {name: (done / "0" / name).stat().st_mtime_ns for name in before} == before
    assert _contents(prepare(config, data_dir, processes=2)) == _contents(corpus)


def test_max_bytes_is_shared_by_the_shards(files: Path, tmp_path: Path) -> None:
    config = _config(files, benchmarks=[], generated=[], weight=None)
    config.hub = [OmegaConf.merge(config.hub[0], {"max_bytes": 5000})]
    corpus = prepare(config, tmp_path, processes=1)
    assert not (corpus / "train.bin").exists()
    assert 5000 <= _manifest(corpus)["hub"][0]["bytes"] < 5000 + 5 * 800
    assert {len(_manifest(corpus)["hub"][0]["shards"]), _manifest(corpus)["domains"]["web"]["train"]["documents"]} > {5}
    assert TokenDataset(corpus, 0, 8, 2, weights=mixing_weights(config)).batch(0)[0].shape == (2, 8)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"text_field": "text"}, ValueError, r"data\.hub\.text_field=text: .*notes has the fields body"),
        ({"path": "absent"}, ConnectionError, "cannot stream absent .*run the same command again"),
        ({"weight": -1}, ValueError, r"weights of its sources are \[1.0, 5.0, -1.0\]: give numbers above 0"),
        ({"weight": 1e-6}, ValueError, r"give each at least 0\.0001 of their sum"),
        ({"shards": 0}, ValueError, r"data\.hub\[1\]\.shards=0: give a number above 0"),
    ],
)
def test_impossible_data_sets_are_refused(files: Path, tmp_path: Path, change: dict, error: type, message: str) -> None:
    config = _config(files, benchmarks=[])
    config.hub[1] = OmegaConf.merge(config.hub[1], change)
    with pytest.raises(error, match=message):
        prepare(config, tmp_path, processes=1)


def test_weights_and_parts_that_mean_nothing_are_refused(files: Path, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.weight=None: give that of packages and generated text"):
        prepare(_config(files, weight=None), tmp_path)
    with pytest.raises(ValueError, match=r"data\.weight=1\.0: it goes with these and data sets of the hub"):
        prepare(_config(files, hub=None), tmp_path)
    with pytest.raises(ValueError, match="part=0: data=mixed has no data sets of the hub"):
        prepare_part(_config(files, hub=None, weight=None), tmp_path, 0, 2)
    with pytest.raises(ValueError, match="part=2: give a number from 0 to parts - 1 = 1"):
        prepare_part(_config(files), tmp_path, 2, 2)
    with pytest.raises(ValueError, match=r"is a mix: give a weight for train\.bin and for each data set"):
        TokenDataset(corpus, 0, 16, 4)


def test_a_run_trains_on_a_mix(corpus: Path, files: Path, tmp_path: Path) -> None:
    register()
    overrides = ["scale=smoke", "tracking=off", "threads=1", "train.total_tokens=1024", "train.snapshot_interval=1024"]
    overrides += ["train.checkpoint_interval=1024", "train.fork_points=[]", "train.log_interval=1"]
    folders = [f"runs_dir={tmp_path}", f"data_dir={corpus.parents[1]}", "schedule.warmup_tokens=256"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("config", [*overrides, *folders, "run=dense_411m"])
    cfg.data = _config(files)
    losses = [json.loads(line)["loss"] for line in (train(cfg) / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 4 and all(0 < loss < 7 for loss in losses)


@given(size=st.integers(1, 300), seed=st.integers(0, 99))
def test_permutations_visit_everything_once(size: int, seed: int) -> None:
    places = permuted(np.arange(size), size, seed)
    assert np.array_equal(np.sort(places), np.arange(size))
    assert np.array_equal(permuted(np.arange(size)[::2], size, seed), places[::2])


def test_permutations_of_billions_take_no_table_and_look_like_chance() -> None:
    size = 3 * 10**12
    places = permuted(np.arange(100_000), size, 0)
    assert len(np.unique(places)) == 100_000 and 0 <= places.min() and places.max() < size
    quarters = np.bincount(places * 4 // size, minlength=4)
    assert abs(quarters - 25_000).max() < 700  # five standard deviations
    assert abs(np.corrcoef(places[:-1], places[1:])[0, 1]) < 0.016
    assert (places != permuted(np.arange(100_000), size, 1)).all()
    orders = {tuple(permuted(np.arange(5), 5, key)) for key in range(2000)}
    assert len(orders) == 120


def _numbered(folder: Path, sizes: list[list[int]]) -> list[list[tuple[Path, int]]]:
    """Files of tokens, each a number of its own."""
    components, first = [], 0
    for component, files in enumerate(sizes):
        components.append([])
        for number, tokens in enumerate(files):
            path = folder / f"{component}-{number}.bin"
            np.arange(first, first + tokens, dtype="<u4").tofile(path)
            components[-1].append((path, tokens))
            first += tokens
    return components


def test_a_mix_keeps_its_shares_and_visits_every_window_once_an_epoch(tmp_path: Path) -> None:
    weights = [0.7, 0.2, 0.1]
    components = _numbered(tmp_path, [[403, 10, 3, 200], [97], [41, 41]])
    mix = Mix(components, weights, np.dtype("<u4"), seed=3, length=4)
    rows = np.arange(3 * ROUND)
    dealt, numbers = mix.dealt(rows)
    assert np.array_equal(np.bincount(dealt), 3 * ROUND * np.array(weights))
    assert np.array_equal(np.bincount(dealt[500:1500]) / 1000 > [0.65, 0.15, 0.07], [True] * 3)  # well mixed
    tokens = mix.read(rows[:5000])
    assert np.array_equal(tokens, tokens[:, :1] + np.arange(5))  # no window crosses files
    for component, windows in enumerate([100 + 2 + 0 + 49, 24, 20]):
        here = dealt == component
        assert np.array_equal(np.sort(numbers[here]), np.arange(here.sum()))
        starts = tokens[here[:5000], 0]
        first, second = starts[:windows], starts[windows : 2 * windows]
        assert len(np.unique(first)) == windows and set(first) == set(second) and list(first) != list(second)
    assert mix.epoch_rows == 24 * ROUND // 2000  # of the component that ends first


def test_round_counts_are_whole_and_nearest() -> None:
    assert round_counts([1, 1, 1]).tolist() == [3334, 3333, 3333]
    assert round_counts([0.9999, 0.0001]).tolist() == [9999, 1]


@pytest.mark.parametrize("size", [2, 4])
def test_every_process_reads_its_rows_of_the_same_batch(corpus: Path, files: Path, size: int) -> None:
    weights = mixing_weights(_config(files))
    data = TokenDataset(corpus, 1, 16, 8, weights=weights)
    for step in (0, 5, ROUND // 8 - 1, 10**9):  # one across rounds, one after many epochs
        whole = data.batch(step)
        parts = [slice(rank * 8 // size, (rank + 1) * 8 // size) for rank in range(size)]
        others = [TokenDataset(corpus, 1, 16, 8, weights=weights).batch(step, rows) for rows in parts]
        for array, *pieces in zip(whole, *others, strict=True):
            assert array.dtype == np.int64 and array.shape == (8, 16)
            assert np.array_equal(np.concatenate(pieces), array)
        assert np.array_equal(whole[0][:, 1:], whole[1][:, :-1])
    assert not np.array_equal(data.batch(0)[0], TokenDataset(corpus, 2, 16, 8, weights=weights).batch(0)[0])
