"""Damage on the disk between two calls of a run: noticed before a step is trained, in one line that says the mend."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pma.layout import checkpoints

MODEL = "model=smoke/dense_411m"


@pytest.fixture(scope="module")
def stopped(shared_lab):
    """A run that stands at half its length, with checkpoints at 5120 and 7680 tokens."""
    return shared_lab.train(MODEL, "run_id=to_damage", "stop=7680")


@pytest.fixture
def copied(lab, stopped) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(stopped, lab.folder("to_damage")))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def go_on(lab, *more: str) -> Path:
    return lab.train(MODEL, "run_id=to_damage", *more)


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_gives_the_same_bits(
    lab, copied, stopped, name, damage, shared_lab, last_weights, assert_same_bits
):
    newest = checkpoints(copied)[7680]
    damage(newest / name)
    with pytest.raises(ValueError, match=rf"{name}: (changed since it was written|missing); remove the folder"):
        go_on(lab)
    if (name, damage) == ("optimizer.safetensors", flip):
        shutil.rmtree(newest)  # what the message proposes
        whole = shared_lab.train(MODEL, "run_id=whole_of_damage")
        assert_same_bits(last_weights(go_on(lab)), last_weights(whole))


@pytest.mark.parametrize(
    "name,text,message",
    [
        ("checkpoints/tokens-000000000007680/state.json", "[]", "a JSON object should stand there, not \\[\\]"),
        ("checkpoints/tokens-000000000007680/state.json", "{}", "has no tokens"),
        ("checkpoints/tokens-000000000007680/state.json", '{"tok', "not readable as JSON"),
        ("checkpoints/tokens-000000000007680/state.json", '{"tokens": 7424}', "7424 tokens is not what the name"),
        ("checkpoints/tokens-000000000007680/state.json", '{"tokens": "7680"}', "no whole number"),
        ("checkpoints/tokens-000000000007680/state.json", '{"tokens": 7680, "files": [1]}', "hashes are damaged"),
        ("manifest.json", "null", "a JSON object should stand there, not None"),
        ("manifest.json", "{}", "has no config_hash, tokens"),
        ("metrics.jsonl", "", "ends at 0 tokens, but the checkpoint stands at 7,680"),
        ("metrics.jsonl", "[1]\n", "line 1: a JSON object should stand there"),
        ("metrics.jsonl", '{"loss": 1.0}\n', "line 1: has no tokens"),
    ],
)
def test_a_damaged_record_of_a_run_is_named(lab, copied, name, text, message):
    (copied / name).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        go_on(lab)
    assert Path(name).name in str(error.value) and "\n" not in str(error.value)


def test_metrics_that_were_cut_short_are_noticed_and_half_a_line_is_not_damage(lab, copied, metrics):
    path = copied / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match="ends at 5,120 tokens, but the checkpoint stands at 7,680"):
        go_on(lab)
    path.write_text("".join(lines) + '{"tokens": 102')  # as a kill leaves it
    assert [row["tokens"] for row in metrics(go_on(lab))] == list(range(2560, 15361, 2560))


@pytest.mark.parametrize("damage,message", [(flip, "changed since the corpus was built"), (cut, "bytes instead of")])
def test_a_damaged_corpus_is_not_trained_on(lab, data_dir, stopped, tmp_path, damage, message):
    shutil.copytree(data_dir, tmp_path / "data")
    (corpus,) = (tmp_path / "data" / "corpora").glob("generated-*")
    damage(corpus / "train.bin")
    with pytest.raises(ValueError, match=rf"train.bin: .*{message}.*remove .*, which builds the same bytes"):
        go_on(lab, f"data_dir={tmp_path / 'data'}")
    assert not (lab.folder("to_damage") / "manifest.json").exists()
    shutil.rmtree(corpus)
    assert go_on(lab, f"data_dir={tmp_path / 'data'}", "stop=2560").is_dir()


@pytest.mark.parametrize("parts", [{"train": 7}, {"train": {}}, {"train": {"tokens": "many", "sha256": ""}}])
def test_a_damaged_manifest_of_the_corpus_is_named(lab, data_dir, copied, tmp_path, parts):
    shutil.copytree(data_dir, tmp_path / "data")
    (corpus,) = (tmp_path / "data" / "corpora").glob("generated-*")
    (corpus / "manifest.json").write_text(json.dumps({"dtype": "uint16", "parts": parts}))
    with pytest.raises(ValueError, match=r"manifest.json: not the manifest of a corpus; remove .*, which builds"):
        go_on(lab, f"data_dir={tmp_path / 'data'}")


def test_a_manifest_that_says_more_than_the_run_has_is_refused(lab, copied):
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps({**manifest, "tokens": 10**9}))
    with pytest.raises(ValueError, match="manifest.json: 1,000,000,000 tokens, and the run has 15,360"):
        go_on(lab)


def test_what_a_kill_left_aside_goes_though_its_name_never_comes_again(lab, copied):
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    left = [
        copied / kept / f".tokens-000000000005120.partial-{socket.gethostname()}-{done.pid}{old}"
        for kept in ("snapshots", "checkpoints")
        for old in ("", "-old")
    ]
    for folder in left:
        folder.mkdir()
    go_on(lab, "stop=10240")
    assert not any(folder.exists() for folder in left)
