"""Data sets of the hub, by local folders: shards tokenised side by side, resumed after a kill."""

from __future__ import annotations

import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from omegaconf import OmegaConf
from transformers import AutoTokenizer

from pma.corpus.build import prepare, prepare_part
from pma.corpus.clean import clean
from pma.corpus.hub import is_heldout
from pma.corpus.mix import mixing_weights
from pma.corpus.tokens import TokenDataset

SHARDS = 8  # five files of JSON Lines; a parquet file of six row groups, dealt out to three


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


def test_shards_hold_every_document_but_those_held_out_overlapping_or_twice(
    benchmark_text: str, mixed_corpus: Path, hub_files: Path
) -> None:
    manifest = _manifest(mixed_corpus)
    rows = [json.loads(line)["text"] for file in range(5) for line in (hub_files / "web" / f"{file}.jsonl").open()]
    pages = pq.read_table(hub_files / "notes").column("body").to_pylist()
    for source, (count, texts) in enumerate([(5, rows), (3, pages)]):
        data_set = manifest["hub"][source]
        assert [shard["file"] for shard in data_set["shards"]] == [f"hub/{source}/{n:05d}.bin" for n in range(count)]
        cleaned = list(dict.fromkeys(filter(None, (clean(text or "") for text in texts))))
        expected = [text for text in cleaned if not is_heldout(text, 0, 0.1) and benchmark_text.upper() not in text]
        assert _documents(mixed_corpus, source) == expected and 0 < len(expected) < len(cleaned)
        assert data_set["documents"] == len(expected) and data_set["bytes"] == sum(
            len(text.encode()) for text in expected
        )
        assert data_set["tokens"] == manifest["domains"][data_set["domain"]]["train"]["tokens"]
        held = (mixed_corpus / "heldout" / f"{data_set['domain']}.jsonl").read_text()
        assert held and not [text for text in expected if json.dumps(text[:40])[1:-1] in held]
    assert manifest["hub"][0]["left_out"]["overlapping"] + manifest["hub"][0]["left_out"]["heldout"] >= 5
    assert json.loads((mixed_corpus / "overlap.json").read_text())["hub"]["sets"]["bench"]["hit"] == 1


def test_two_calls_of_two_processes_give_the_same_bytes(
    mixed_corpus: Path, hub_files: Path, make_hub_config, hub_data_dir: Path
) -> None:
    assert prepare_part(make_hub_config(hub_files), hub_data_dir, 1, 2, processes=2) is None
    assert not (hub_data_dir / "corpora" / mixed_corpus.name).exists()
    # Weights say how a corpus is read: with others it is the same one.
    other = prepare_part(make_hub_config(hub_files, weight=3), hub_data_dir, 0, 2, processes=1)
    assert other is not None and other.name == mixed_corpus.name and _contents(other) == _contents(mixed_corpus)
    assert not any((hub_data_dir / "building").iterdir())


def test_a_killed_build_goes_on_with_the_missing_shards(
    mixed_corpus: Path, hub_files: Path, make_hub_config, hub_data_dir: Path
) -> None:
    config = make_hub_config(hub_files)
    assert prepare_part(config, hub_data_dir, 0, SHARDS, processes=1) is None
    done = hub_data_dir / "building" / mixed_corpus.name / "done"
    with ThreadPoolExecutor(1) as pool, FileLock(done / "0" / "00003.lock"):  # the build waits there
        building = pool.submit(prepare, config, hub_data_dir, 1)
        deadline = time.monotonic() + 60
        while len(list(done.glob("*/*.json"))) < 3 and time.monotonic() < deadline and not building.done():
            time.sleep(0.02)
        for child in psutil.Process().children():
            for worker in child.children():  # of the fork server
                worker.kill()
        with pytest.raises(ValueError, match="was killed, .*run the same command again; finished shards are kept"):
            building.result()
    assert sorted(path.name for path in done.glob("0/*.json")) == ["00000.json", "00001.json", "00002.json"]
    shards = done.parent / "corpus" / "hub" / "0"
    before = {path.name: path.stat().st_mtime_ns for path in shards.glob("*.bin")}
    (shards / ".00003.bin.partial-host-1").write_bytes(b"half")
    built = prepare(config, hub_data_dir, processes=1)
    assert _contents(built) == _contents(mixed_corpus)
    assert before and all((built / "hub" / "0" / name).stat().st_mtime_ns == at for name, at in before.items())


def test_max_bytes_is_shared_by_the_shards(hub_files: Path, make_hub_config, tmp_path: Path) -> None:
    config = make_hub_config(hub_files, benchmarks=[], generated=[], weight=None)
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
def test_impossible_data_sets_are_refused(
    hub_files: Path, make_hub_config, tmp_path: Path, change: dict, error: type, message: str
) -> None:
    config = make_hub_config(hub_files, benchmarks=[])
    config.hub[1] = OmegaConf.merge(config.hub[1], change)
    with pytest.raises(error, match=message):
        prepare(config, tmp_path, processes=1)


def test_weights_and_parts_that_mean_nothing_are_refused(
    hub_files: Path, make_hub_config, mixed_corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"data\.weight=None: give that of packages and generated text"):
        prepare(make_hub_config(hub_files, weight=None), tmp_path)
    with pytest.raises(ValueError, match=r"data\.weight=1\.0: it goes with these and data sets of the hub"):
        prepare(make_hub_config(hub_files, hub=None), tmp_path)
    with pytest.raises(ValueError, match="part=0: data=mixed has no data sets of the hub"):
        prepare_part(make_hub_config(hub_files, hub=None, weight=None), tmp_path, 0, 2)
    with pytest.raises(ValueError, match="part=2: give a number from 0 to parts - 1 = 1"):
        prepare_part(make_hub_config(hub_files), tmp_path, 2, 2)
    with pytest.raises(ValueError, match=r"is a mix: give a weight for train\.bin and for each data set"):
        TokenDataset(mixed_corpus, 0, 16, 4)
