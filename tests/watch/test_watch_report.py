"""What a watch says: gains in one direction, positions as the names count, windows that lack something."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from pma.watch.anneals import Estimate
from pma.watch.follow import Watch
from pma.watch.kept import KeptMerge
from pma.watch.report import Axis, estimate_text, score_text
from pma.watch.scores import gain

SMA_2 = {"method": "sma", "n": 2}


def test_a_gain_above_zero_is_better_whatever_the_metric():
    assert gain("bits_per_byte", 2.0, over=2.5) == gain("acc", 2.5, over=2.0) == 0.5
    recipe = KeptMerge("sma", 2, None)
    row = {"raw/text/bits_per_byte": 2.5, "sma_2/text/bits_per_byte": 2.384, "raw/average/acc": 0.5}
    row |= {"sma_2/average/acc": 0.25}
    text = score_text(recipe, "text/bits_per_byte", row, [row, {"sma_2/text/bits_per_byte": 2.3}])
    assert text == "text/bits_per_byte 2.3840, saves 0.1160 bits per byte over the checkpoint, best so far 2.3000"
    assert "loses 0.2500 over the checkpoint, best so far 0.2500" in score_text(recipe, "average/acc", row, [row])
    row["sma_2/text/bits_per_byte"] = 2.6
    assert ", costs 0.1000 bits per byte over the checkpoint" in score_text(recipe, "text/bits_per_byte", row, [row])


def test_positions_are_steps_unless_their_names_or_the_user_say_otherwise():
    assert Axis.of("checkpoint-400", 1).at(400) == "step 400"
    assert Axis.of("checkpoint-400", 4096).at(400) == "step 400 (1.64M tokens)"
    assert Axis.of("tokens-000004915200", 1).at(4_915_200) == "4.92M tokens"
    assert Axis.of("epoch=3.ckpt", 1).at(3) == "epoch 3" and Axis.of("epoch=3-step=9.ckpt", 1).at(9) == "step 9"
    assert Axis.of("checkpoint-400", 1).length(2000.0) == "2,000 steps"
    assert Axis.of("checkpoint-400", 4096).length(2e9) == Axis.of("tokens-1", 1).length(2e9) == "2B tokens"
    with pytest.raises(ValueError, match="tokens_per_step=8: tokens-4 counts tokens"):
        Axis.of("tokens-4", 8)


def test_an_estimate_says_its_interval_or_why_there_is_none():
    found = Estimate(2.31, (2.3, 2.34), 0.9, "45 decays of 9 runs at scale cpu")
    assert estimate_text("text/bits_per_byte", found, "2,000 steps") == (
        "annealed over the last 2,000 steps the run would score text/bits_per_byte 2.3100 (2.3000 to 2.3400, the 90% "
        "interval of 45 decays of 9 runs at scale cpu)"
    )
    none = estimate_text("text/bits_per_byte", Estimate(2.31, None, 0.5, "there are none"), "2,000 steps")
    assert none.endswith("of about 2.3100; no interval, for there are none")


def test_a_decay_longer_than_the_run_gets_no_estimate(tmp_path, make_job, make_checkpoint, monkeypatch):
    for at in (100, 200):
        make_checkpoint(tmp_path / "run" / f"checkpoint-{at}", 1.0)
    monkeypatch.setattr("pma.watch.follow.FolderScorer", lambda *_: SimpleNamespace(require=lambda folder: folder))
    merges, row = {KeptMerge("sma", 2, None): (tmp_path, 2)}, {"sma_2/text/bits_per_byte": 2.0}
    for length, told in ((200, True), (201, False)):
        watch = Watch(make_job(tmp_path / "run", tmp_path / "out", [SMA_2], text="held.jsonl", anneal=length))
        assert bool(watch._estimate(200, merges, dict(row), [100, 200])) == told


def test_a_window_says_once_what_was_deleted_and_what_never_came(tmp_path, make_job, make_checkpoint, look, capsys):
    run = tmp_path / "run"
    for i, at in enumerate((100, 200, 300, 700)):
        make_checkpoint(run / f"checkpoint-{at}", float(i))
    watch = Watch(make_job(run, tmp_path / "out", [{"method": "sma", "n": 4}]))
    look(watch)
    assert "step 700: sma_4 spans a gap: no checkpoint between step 300 and step 700" in capsys.readouterr().out
    for at in (100, 200, 300):
        shutil.rmtree(run / f"checkpoint-{at}")
    for at in (800, 900):
        make_checkpoint(run / f"checkpoint-{at}", 4.0)
        look(watch)
    told = capsys.readouterr().out
    assert "step 800: sma_4 goes without step 200, step 300, deleted since; hold=true keeps a window" in told
    assert told.count("hold=true") == 1 and "spans a gap" not in told


def test_uneven_windows_count_for_a_shape_of_decay(tmp_path, make_job, make_checkpoint, look):
    for at in (0, 100, 400):
        make_checkpoint(tmp_path / "run" / f"checkpoint-{at}", float(at))
    look(Watch(make_job(tmp_path / "run", tmp_path / "out", [{"method": "linear", "n": 3}])))
    merged = load_file(tmp_path / "out" / "merged" / "linear_3" / f"{400:012d}" / "model.safetensors")
    expected = (1 - 5 / 6) * 0 + (5 / 6 - 1 / 3) * 100 + 1 / 3 * 400  # the decay ends 200 after the last
    assert merged["w"][0].item() == pytest.approx(expected)


# ---- with scores ----


def test_estimates_stand_in_rows_and_words_but_not_for_a_single_checkpoint(
    watched, tmp_path, make_job, look, read_rows, capsys
):
    run, _ = watched
    (tmp_path / "held.jsonl").write_text('{"text": "one plus two"}\n{"text": "three four"}\n')
    rows = [{"position": i, "score": "text/bits_per_byte", "merge": 2.0, "annealed": 2.0 + i / 10} for i in (1, 2, 3)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own = {"anneal": 4, "anneals": str(tmp_path / "own.jsonl"), "text": str(tmp_path / "held.jsonl")}
    look(Watch(make_job(run, tmp_path / "out", [SMA_2, {"method": "ema", "alpha": 0.5}], **own)))
    first, second, *_ = read_rows(tmp_path / "out")
    assert not [key for key in first if "annealed" in key]
    for recipe in ("sma_2", "ema_0.5"):
        merged = second[f"{recipe}/text/bits_per_byte"]
        estimates = [
            second[f"{recipe}/{name}/text/bits_per_byte"] for name in ("annealed_low", "annealed", "annealed_high")
        ]
        assert estimates == pytest.approx([merged + 0.1, merged + 0.2, merged + 0.3])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step 8: sma_2 of 1 checkpoint, ") and lines[0].endswith(": the checkpoint itself")
    assert lines[2].startswith("step 10: sma_2 of 2 checkpoints, ") and " bits per byte over the checkpoint" in lines[2]
    assert lines[3].startswith("  annealed over the last 4 steps the run would score text/bits_per_byte ")
    assert lines[3].endswith("the 50% interval of 3 decays of yours)")
    card = tmp_path / "out" / "merged" / "sma_2" / f"{16:012d}" / "README.md"
    assert "| text | text | bits_per_byte |" in card.read_text()
