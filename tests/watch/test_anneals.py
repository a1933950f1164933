"""Estimates of the annealed score: from published decays, from a user's own, and never an interval without them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from pma.config import CONF_DIR, register
from pma.records import COLUMNS
from pma.watch.anneals import _LONGEST, PUBLISHED, Errors, Merged, Own, Published, estimate

SMA = Merged("sma_10", "sma", span=1000.0)
SCORE = "text/bits_per_byte"


def test_an_interval_goes_over_the_middle_of_many_errors_and_over_all_of_few():
    many = estimate(2.0, Errors(list(np.linspace(-0.1, 0.3, 41)), 3, "w"))
    assert many.value == pytest.approx(2.1) and many.interval == pytest.approx((1.92, 2.28)) and many.share == 0.9
    few = estimate(2.0, Errors([0.1, -0.1, 0.2], 3, "w"))
    assert few.value == pytest.approx(2.1) and few.interval == pytest.approx((1.9, 2.2)) and few.share == 0.5


def test_fewer_than_three_give_no_interval_and_the_words_why():
    two = estimate(2.0, Errors([0.1, 0.2], 2, "there are two only"))
    assert two.value == 2.0 and two.interval is None and two.words == "there are two only"


# ---- published ----


def publish(root, scale: str, seeds: int, error: float = 0.01) -> None:
    """Records of decays of 8 and 32 distances, whose annealed score is `error` times their length above the merge's."""
    rows = []
    shared = {"scale": scale, "experiment": "annealing_forecast", "interval": 10, "suite": "proxy", "stderr": 0.1}
    shared |= {"task": "heldout", "metric": "bits_per_byte", "config_hash": "0"}
    for seed in range(seeds):
        for run, tokens, length in (("decay_8_at_40", 480, 8), ("annealed_moe_main", 2000, 32)):
            at = shared | {"seed": seed, "tokens": tokens}
            rows.append({**at, "run": "moe_main", "method": "sma", "n": 10, "value": 2.0 + seed})
            rows.append({**at, "run": "moe_main", "method": "last", "n": 1, "value": 3.0 + seed})
            rows.append({**at, "run": run, "method": "last", "n": 1, "value": 2.0 + seed + error * length})
    place = root / scale / "published" / "annealing_forecast"
    place.mkdir(parents=True)
    pd.DataFrame(rows, columns=COLUMNS).to_csv(place / "records.csv", index=False)


def test_published_decays_of_about_the_length_count_in_windows_of_the_merge(tmp_path):
    publish(tmp_path, "cpu", seeds=3)
    published = Published(tmp_path, "text")
    short = published.errors(SCORE, SMA, 800.0)  # 8 of the ten distances of a window, as the published ones
    assert short.values == pytest.approx([0.08] * 3) and short.independent == 3
    assert short.words == "3 decays of 3 runs at scale cpu"
    assert published.errors(SCORE, SMA, 1600.0).values == pytest.approx([0.08, 0.32] * 3)  # twice, and half as long
    assert published.errors(SCORE, SMA, 1601.0).values == pytest.approx([0.32] * 3)
    assert published.errors(SCORE, Merged("sma_10", "sma", 10.0), 32.0).values == pytest.approx([0.32] * 3)
    far = published.errors(SCORE, SMA, 10_000.0)
    assert far.independent == 0 and "0.8 to 3.2 times the length of the merged window, and this one 10" in far.words


def test_without_fitting_published_decays_the_words_say_what_is_missing(tmp_path):
    assert "were published with this installation" in Published(tmp_path, "text").errors(SCORE, SMA, 800.0).words
    publish(tmp_path, "cpu", seeds=2)
    published = Published(tmp_path, "proxy")
    assert published.errors("heldout/bits_per_byte", SMA, 800.0).independent == 2
    assert "2 decays of 2 runs at scale cpu only, and it takes 3 runs" in (
        published.errors("heldout/bits_per_byte", SMA, 800.0).words
    )
    assert "beside SMA alone" in published.errors("heldout/bits_per_byte", Merged("wma_3", "wma", 9.0), 9.0).words
    assert "not scored on average/acc" in published.errors("average/acc", SMA, 800.0).words
    other = Published(tmp_path, "instruct").errors("heldout/bits_per_byte", SMA, 800.0)  # another suite's text
    assert other.independent == 0 and "not scored on heldout/bits_per_byte of suite=instruct" in other.words
    publish(tmp_path, "gpu", seeds=3)  # the scale with most of them
    assert "at scale gpu" in Published(tmp_path, "text").errors(SCORE, SMA, 800.0).words


def test_the_records_of_this_repository_can_be_read():
    errors = Published(PUBLISHED, "text").errors(SCORE, SMA, 1600.0)
    assert len(errors.values) == 15 * errors.independent and errors.independent >= 1  # a fork each, all lengths


# ---- a user's own ----

ROWS = [{"position": i, "score": SCORE, "merge": 2.0, "annealed": 2.0 + i / 10} for i in (1, 2, 3)]


def write(path, rows) -> Own:
    if path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows))
    return Own(path)


@pytest.mark.parametrize("name", ["own.csv", "own.jsonl"])
def test_own_decays_are_read_from_a_table_or_lines(tmp_path, name):
    errors = write(tmp_path / name, ROWS).errors(SCORE, SMA, 500.0)
    assert errors.values == pytest.approx([0.1, 0.2, 0.3]) and errors.words == "3 decays of yours"


def test_own_decays_count_for_their_score_recipe_and_length(tmp_path):
    more = [
        {**ROWS[0], "length": 100, "recipe": "sma_10"},
        {**ROWS[1], "length": 400, "recipe": None},
        {**ROWS[2], "score": "average/acc"},
    ]
    own = write(tmp_path / "own.csv", more)
    assert own.errors(SCORE, SMA, 200.0).independent == 2
    found = own.errors(SCORE, SMA, 90.0)
    assert found.independent == 1
    assert found.words == f"there is 1 decay of yours like this one in {SCORE} only, and it takes 3"
    assert own.errors(SCORE, Merged("ema_0.2", "the running ema", None), 90.0).independent == 0


@pytest.mark.parametrize(
    "text,message",
    [
        ("", "no decays in it"),
        ("{", "not readable as JSON Lines"),
        ("[1]", "line 1: no object"),
        (json.dumps({**ROWS[0], "lenght": 5}), "line 1: lenght is none of position, score"),
        (json.dumps({"position": 5, "score": SCORE, "merge": 2}), "line 1: annealed is missing"),
        (json.dumps({**ROWS[0], "merge": "NaN"}), "line 1: merge=NaN: give a number"),
        (json.dumps({**ROWS[0], "length": 0}), "line 1: length=0: give a number above 0"),
        ("\n".join([json.dumps(ROWS[0])] * 2), "line 2: this decay stands twice"),
    ],
)
def test_a_file_that_says_something_else_is_refused_by_line(tmp_path, text, message):
    (tmp_path / "own.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message) as refused:
        Own(tmp_path / "own.jsonl")
    assert "\n" not in str(refused.value)


def test_the_length_of_the_annealing_without_one_in_its_name_is_that_of_its_config():
    register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        for run, length in _LONGEST.items():
            cfg = compose("config", [f"run={run}", "scale=cpu"])
            assert cfg.schedule.decay_tokens == length * cfg.scale.merge_interval
