"""Figures: every experiment's is described and drawn, over all its seeds; their numbers are those of the records."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import draw
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from drawing import chart, picture
from drawing.curves import curves_by_step
from drawing.description import Bars, Cells, Contour, Figure, Line, Panel
from drawing.find import describe
from drawing.scores import measure, pick, saved_over, scores
from figures.figure_7 import FINE_TUNED
from figures.table_1 import COLUMNS
from records import Study, experiment_order
from scipy import stats
from style import AXES
from synthetic_world import BATCH, World, write_run, write_world
from verdicts.evidence import forecast_skill, tokens_needed
from verdicts.evidence.curves import running_median

from pma.config import CONF_DIR

BEYOND = {path.stem for path in (CONF_DIR / "experiment" / "beyond").glob("*.yaml")}  # test_beyond.py has their records
FIGURES = {path.stem for path in Path(draw.__file__).parent.glob("figures/[!_]*.py")} - BEYOND
EXPERIMENTS = sorted(FIGURES, key=experiment_order)
SEEDS, COUNTED = [0, 2, 3, 4], [2, 3, 4]


@pytest.fixture(scope="module")
def study(world) -> Study:
    return Study(world)


@pytest.fixture(scope="module")
def described(study) -> Callable[[str], Figure]:
    """The figure of an experiment, described once."""
    return cache(lambda name: describe(study, name))


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory) -> Study:
    """Records of seed 0 alone."""
    return Study(write_world(tmp_path_factory.mktemp("newcomer") / "cpu", World(), seeds=(0,)))


def call(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["draw.py", *arguments])
    draw.main()


def panel_of(figure, title: str) -> Panel:
    return next(panel for panel in figure.panels if panel.title == title)


def series_of(panel: Panel, label: str) -> Line | Bars:
    return next(series for series in panel.series if series.label == label)


def test_figures_are_found_by_name(study):
    assert study.experiments() == EXPERIMENTS
    assert EXPERIMENTS[:2] == ["figure_1", "figure_2"] and EXPERIMENTS[8:10] == ["figure_9", "table_1"]


# ---- every figure


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_figure_is_drawn_as_described(study, described, name):
    figure = described(name)
    assert figure.title and study.scale in figure.caption
    canvas = picture.draw(figure)
    canvas.draw_without_rendering()  # lays it out: overfull panels and broken texts show here
    # A contour and a matrix bring a colour bar each.
    bars = sum(isinstance(series, Contour | Cells) for panel in figure.panels for series in panel.series)
    assert len(canvas.axes) == len(figure.panels) + len(figure.tables) + bars
    assert all(panel.series for panel in figure.panels)
    plt.close(canvas)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_panel_is_a_chart_that_shows_all_dots(described, name):
    for panel in described(name).panels:
        assert chart.chart(panel)["doc"]
        (left, right), (low, high) = chart.limits(panel)
        for series in panel.series:
            if dots := getattr(series, "dots", None):
                assert left <= dots.x.min() and dots.x.max() <= right
                assert panel.ylim != (None, None) or (low <= dots.y.min() and dots.y.max() <= high)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_caption_stands_alone_and_says_each_thing_once(study, described, name):
    figure = described(name)
    sentences = [sentence for sentence in figure.caption.split(". ") if len(sentence) > 20]
    assert len(set(sentences)) == len(sentences)
    assert figure.caption.count("pre-trained model averaging") <= 1
    if "PMA" in figure.caption:
        assert "mean of the last N snapshots, V training tokens apart" in figure.caption
    runs = {folder.rpartition("-seed")[0] for folder in study.run_folders()}
    labels = [getattr(series, "label", "") for panel in figure.panels for series in panel.series]
    shown = " ".join([figure.caption, *(panel.title for panel in figure.panels), *labels])
    assert not [run for run in runs if run in shown.split() and "_" in run], (
        "a name of our config tells a reader nothing"
    )
    assert "standing for" in shown or "size that the model stands for" in figure.xlabel
    for panel in figure.panels:
        assert not panel.ylabel.startswith("gain (") or "gain, " in panel.title, "a gain panel names its task"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_caption_says_over_which_runs_and_which_never_count(described, newcomer, name):
    caption = described(name).caption
    if name != "figure_8":  # it shows every seed's numbers, and no mean of them
        assert "Means over 3 training runs (seeds 2 to 4)" in caption and "Student's t" in caption
    alone = describe(newcomer, name)
    assert "One training run (seed 0)" in alone.caption or name == "figure_8"
    assert not [series for panel in alone.panels for series in panel.series if getattr(series, "dots", None)]


def test_held_out_text_stands_first(described):
    for name in ("figure_1", "figure_3", "figure_4", "figure_5", "figure_9", "duration", "learning_rate"):
        assert "held-out text" in described(name).panels[0].title


# ---- numbers


def test_a_bar_is_the_mean_of_the_seeds_that_count_and_has_a_dot_for_each(study):
    table, panel = scores(study, "figure_1"), panel_of(describe(study, "figure_1"), "held-out text")
    order = sorted(table["run"].unique(), key=study.parameters)
    records = study.records("figure_1")
    for method, label in (("last", "last snapshot"), ("sma", "PMA")):
        bars = series_of(panel, label)
        here = pick(records, task="heldout", metric="bits_per_byte", method=method)
        by_seed = here.pivot(index="seed", columns="run", values="value")[order]
        np.testing.assert_allclose(bars.y, by_seed.loc[COUNTED].mean())
        np.testing.assert_allclose(bars.error, stats.t.ppf(0.975, 2) * by_seed.loc[COUNTED].sem(), rtol=1e-6)
        np.testing.assert_allclose(bars.dots.y, by_seed.to_numpy().T.ravel())
        assert bars.dots.hollow.tolist() == [True, False, False, False] * len(order)
        apart = np.abs(bars.dots.x.reshape(len(order), -1) - bars.x[:, None])
        assert (apart < bars.width / 2).all(), "the dots stand over their bar"


def test_what_is_saved_over_another_run_is_counted_seed_by_seed(study):
    table = pick(scores(study, "figure_3"), task="heldout", metric="bits_per_byte")
    constant, annealed = (pick(table, run=run, method="last") for run in ("moe_main", "annealed_moe_main"))
    saved = saved_over(annealed, constant)
    records = pick(study.records("figure_3"), task="heldout", method="last", tokens=saved["tokens"].iloc[-1])
    by_seed = records.pivot(index="seed", columns="run", values="value")
    gain = by_seed["moe_main"] - by_seed["annealed_moe_main"]
    last = saved.iloc[-1]
    assert last["gains"] == pytest.approx(gain.to_dict())
    assert last["gain"] == pytest.approx(gain[COUNTED].mean())
    assert last["gain_error"] == pytest.approx(stats.t.ppf(0.975, 2) * gain[COUNTED].sem(), rel=1e-6)


def test_forecasts_and_tokens_are_those_that_decide_the_claims(study):
    figure = describe(study, "annealing_forecast")
    errors = panel_of(figure, "mean absolute error over fifteen forks")
    merge, last = (series_of(errors, label).y[0] for label in ("the merge", "last snapshot"))
    skill = forecast_skill(study, "text", COUNTED)["over the last snapshot"].mean()
    assert last - merge == pytest.approx(skill)
    (ratios,) = panel_of(figure, "tokens for the annealed score").series
    assert 1.2 - ratios.y.mean() == pytest.approx(tokens_needed(study, "text", COUNTED, most=1.2).mean().item())


def test_a_curve_is_the_mean_over_the_seeds_that_count(study):
    panel = describe(study, "figure_7").panels[0]
    for run, (start, _) in FINE_TUNED.items():
        curve = next(series for series in panel.series if series.label.startswith(start))
        medians = pd.DataFrame({s: running_median(study.curve(run, s)["gradient_norm"]) for s in COUNTED})
        np.testing.assert_allclose(curve.y, medians.mean(axis=1))
        assert curve.band and (curve.error > 0).all()


def test_curves_go_as_far_as_all_seeds_do(study, tmp_path):
    for seed, steps in ((0, 4), (2, 3)):
        write_run(tmp_path, "moe_main", seed, World())
        path = tmp_path / f"moe_main-seed{seed}" / "metrics.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:steps]))
        path.with_name("manifest.json").write_text(json.dumps({"tokens": BATCH * steps}))  # still in training
    assert curves_by_step(Study(tmp_path), "moe_main", "loss").shape == (3, 2)


def test_the_collapse_is_drawn_where_its_runs_are_there(study, world, tmp_path):
    for folder in ("figure_7", *(f"{run}-seed0" for run in ("sft_baseline", "sft_pma"))):
        shutil.copytree(world / folder, tmp_path / "cpu" / folder)
    alone = describe(Study(tmp_path / "cpu"), "figure_7")
    assert len(alone.panels) == 1 and "collapse" not in alone.title + alone.caption
    for run in ("spike", "spike_pma", "spike_last"):
        write_run(tmp_path / "cpu", run, 0, World())
    assert len(describe(Study(tmp_path / "cpu"), "figure_7").panels) == 2


def test_the_columns_of_table_1_are_those_of_claim_14(study):
    from verdicts.evidence import tuned

    assert list(COLUMNS) == tuned._COLUMNS


def test_accuracy_is_drawn_where_it_moves(study, monkeypatch):
    still, moving = Study(study.root), Study(study.root)
    for one, ratio in ((still, 1.0), (moving, 9.0)):
        ratios = {
            (task, metric): ratio for task in (*AXES, "average", "heldout") for metric in ("acc", "bits_per_byte")
        }
        monkeypatch.setattr(one, "signal_to_noise", lambda ratios=ratios: ratios)
    assert measure(still) == "bits_per_byte" and measure(moving) == "acc"
    figure = describe(moving, "figure_1")
    assert figure.panels[-1].ylabel.startswith("accuracy (%)") and "Axes: accuracy, as it moves" in figure.caption
    assert len(describe(still, "figure_4").panels) == 4
    assert len(describe(moving, "figure_4").panels) == 6  # a column more


# ---- the command


def test_pictures_and_texts_are_written(study, monkeypatch, world, tmp_path):
    call(monkeypatch, f"--runs-dir={world.parent}", f"--out-dir={tmp_path}", "figure_4", "table_1")
    out = tmp_path / "cpu"
    for name in ("figure_4", "table_1"):
        assert (out / f"{name}.png").stat().st_size > 20_000 and (out / f"{name}.pdf").stat().st_size > 5_000
    assert not list(out.glob(".*"))
    cells = pd.read_csv(out / "table_1.csv")
    bits = cells[cells["tuned"] & (cells["metric"] == "bits_per_byte") & (cells["column"] == "math")]
    text = (out / "table_1.md").read_text(encoding="utf-8")
    assert f"**{bits['value'].min():.3f} ± " in text
    assert "**87.2**" in text and "LiveBench and GPQA have no counterpart" in text


def test_drawing_says_where_the_picture_is_and_what_comes_next(world, tmp_path):
    arguments = [f"--runs-dir={world.parent}", f"--out-dir={tmp_path}", "figure_7"]
    fresh = {**os.environ, "MPLCONFIGDIR": str(tmp_path / "no-font-cache"), "PMA_NEXT": ""}
    command = [sys.executable, draw.__file__, *arguments]
    done = subprocess.run(command, env=fresh, capture_output=True, text=True, check=True)
    assert done.stderr == "", "a stray line of a library"
    picture_line, following = done.stdout.splitlines()
    assert picture_line == f"Figure 7: {tmp_path / 'cpu' / 'figure_7'}.png and .pdf"
    assert following.startswith("next: python analysis/claims.py")


def test_a_study_of_ones_own_gets_a_plain_picture(write_study, tmp_path, monkeypatch, capsys):
    write_study(tmp_path / "runs" / "cpu")
    places = (f"--runs-dir={tmp_path / 'runs'}", f"--out-dir={tmp_path / 'out'}")
    call(monkeypatch, *places, "my_study")
    assert (tmp_path / "out" / "cpu" / "my_study.png").stat().st_size > 10_000
    call(monkeypatch, *places)  # no names: all that has records
    assert "My study: " in capsys.readouterr().out
    figure = describe(Study(tmp_path / "runs" / "cpu"), "my_study")
    text, tasks = figure.panels
    assert [line.label for line in text.series] == ["last", "sma, N = 2, V = 1.02k"]
    assert all(isinstance(line, Line) and len(line.x) == 2 and np.isfinite(line.error).all() for line in tasks.series)
    assert (tasks.series[1].y < tasks.series[0].y).all()


def test_a_missing_record_is_named_in_one_line(study, tmp_path, monkeypatch, capsys):
    with pytest.raises(ValueError, match="records.csv: not there; python -m pma.reproduce"):
        describe(Study(tmp_path), "figure_3")
    with pytest.raises(ValueError, match="no records with run=annealed_moe_main"):
        pick(scores(study, "figure_4"), run="annealed_moe_main")
    with pytest.raises(SystemExit, match="no_such_figure: no such experiment; choose of .*figure_4"):
        call(monkeypatch, f"--runs-dir={tmp_path}", "no_such_figure")
    with pytest.raises(SystemExit, match="figure_4: .*not there"):
        call(monkeypatch, f"--runs-dir={tmp_path}", "figure_4")
    with pytest.raises(SystemExit, match="no records there"):
        call(monkeypatch, f"--runs-dir={tmp_path}")
    call(monkeypatch, "--available", f"--runs-dir={tmp_path}", "figure_4")
    assert "not drawn: figure_4" in capsys.readouterr().out
