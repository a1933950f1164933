"""Figures: every published one is described and drawn; their numbers are those of the records."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import draw
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from drawing import picture
from drawing.description import Bars, Cells, Contour, Line
from drawing.find import describe
from drawing.scores import measure, pick, scores
from figures.figure_7 import gradient_spikes
from records import Study, experiment_order
from style import AXES

EXPERIMENTS = sorted((p.stem for p in Path(draw.__file__).parent.glob("figures/[!_]*.py")), key=experiment_order)


@pytest.fixture(scope="module")
def study(published_cpu) -> Study:
    return Study(published_cpu)


def call(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["draw.py", *arguments])
    draw.main()


def test_figures_are_found_by_name(study):
    assert study.experiments() == EXPERIMENTS
    assert EXPERIMENTS[:2] == ["figure_1", "figure_2"] and EXPERIMENTS[8:10] == ["figure_9", "table_1"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_figure_is_drawn_as_described(study, name):
    figure = describe(study, name)
    assert figure.title and study.scale in figure.caption
    canvas = picture.draw(figure)
    canvas.draw_without_rendering()  # lays it out: overfull panels and broken texts show here
    # A contour and a matrix bring a colour bar each.
    bars = sum(isinstance(series, Contour | Cells) for panel in figure.panels for series in panel.series)
    assert len(canvas.axes) == len(figure.panels) + len(figure.tables) + bars
    assert all(panel.series for panel in figure.panels)
    plt.close(canvas)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_caption_stands_alone_and_says_each_thing_once(study, name):
    figure = describe(study, name)
    sentences = [sentence for sentence in figure.caption.split(". ") if len(sentence) > 20]
    assert len(set(sentences)) == len(sentences)
    assert figure.caption.count("pre-trained model averaging") <= 1
    if "PMA" in figure.caption:
        assert "mean of the last N snapshots, V training tokens apart" in figure.caption
    runs = {folder.rpartition("-seed")[0] for folder in study.run_folders()}
    labels = [getattr(series, "label", "") for panel in figure.panels for series in panel.series]
    shown = " ".join([figure.caption, *(panel.title for panel in figure.panels), *labels])
    assert not [run for run in runs if run in shown and "_" in run], "a name of our config says nothing to a reader"
    assert "standing for" in shown or "size that the model stands for" in figure.xlabel
    for panel in figure.panels:
        assert not panel.ylabel.startswith("gain (") or "gain, " in panel.title, "a gain panel names its task"


def test_pictures_and_texts_are_published(study, monkeypatch, published_cpu, tmp_path):
    runs = published_cpu.parents[1]
    call(monkeypatch, "--published", f"--runs-dir={runs}", f"--out-dir={tmp_path}", "figure_4", "table_1")
    out = tmp_path / "cpu" / "published"
    for name in ("figure_4", "table_1"):
        assert (out / f"{name}.png").stat().st_size > 20_000 and (out / f"{name}.pdf").stat().st_size > 5_000
    assert not list(out.glob(".*"))
    cells = pd.read_csv(out / "table_1.csv")
    accuracy = cells[cells["tuned"] & (cells["metric"] == "acc") & (cells["column"] == "math")]
    text = (out / "table_1.md").read_text(encoding="utf-8")
    assert f"**{accuracy['value'].max():.1f} ± " in text
    assert "**87.2**" in text and "LiveBench and GPQA have no counterpart" in text


def test_drawing_says_where_the_picture_is_and_what_comes_next(published_cpu, tmp_path):
    arguments = ["--published", f"--runs-dir={published_cpu.parents[1]}", f"--out-dir={tmp_path}", "figure_7"]
    fresh = {**os.environ, "MPLCONFIGDIR": str(tmp_path / "no-font-cache"), "PMA_NEXT": ""}
    command = [sys.executable, draw.__file__, *arguments]
    done = subprocess.run(command, env=fresh, capture_output=True, text=True, check=True)
    assert done.stderr == "", "a stray line of a library"
    picture_line, following = done.stdout.splitlines()
    assert picture_line == f"Figure 7: {tmp_path / 'cpu' / 'published' / 'figure_7'}.png and .pdf"
    assert following.startswith("next: make report")


def test_a_picture_shows_the_numbers_of_the_records(study):
    table, figure = scores(study, "figure_1"), describe(study, "figure_1")
    heldout = next(panel for panel in figure.panels if panel.title == "held-out text")
    order = sorted(table["run"].unique(), key=study.parameters)
    for method, label in (("last", "last snapshot"), ("sma", "PMA")):
        bars = next(series for series in heldout.series if isinstance(series, Bars) and series.label == label)
        rows = pick(table, task="heldout", metric="bits_per_byte", method=method).set_index("run").loc[order]
        np.testing.assert_array_equal(bars.y, rows["value"])
        np.testing.assert_array_equal(bars.error, rows["error"])


def test_gains_are_paired_over_items_and_over_seeds_where_there_are_several(study):
    table, items = scores(study, "figure_1"), study.items("figure_1")
    here = {"task": "math", "metric": "bits_per_byte", "run": "moe_10b_100b"}
    last, merged = (pick(items, **here, method=m)["values"].iloc[0] for m in ("last", "sma"))
    row = pick(table, **here, method="sma").iloc[0]
    assert row["gain"] == pytest.approx(np.mean(last - merged), abs=1e-6)
    assert row["gain_error"] == pytest.approx(np.std(last - merged, ddof=1) / np.sqrt(len(last)))
    here["run"] = "moe_main"
    records = pick(study.records("figure_1"), **here)
    by_seed = records.pivot(index="seed", columns="method", values="value")
    row = pick(table, **here, method="sma").iloc[0]
    assert row["seeds"] == 2 and row["gain_error"] == pytest.approx((by_seed["last"] - by_seed["sma"]).sem())
    # Of an average: from the axes, which share no items.
    here = {"run": "moe_20b_200b", "metric": "bits_per_byte", "method": "sma"}
    axes = [pick(table, task=axis, **here)["gain_error"].item() for axis in AXES]
    average = pick(table, task="average", **here)["gain_error"].item()
    assert average == pytest.approx(np.sqrt(np.sum(np.square(axes))) / 4)


def test_accuracy_is_drawn_where_it_moves(study, monkeypatch):
    assert measure(study, ["code"]) == "acc" and measure(study) == "bits_per_byte"  # as published
    moving = Study(study.root)
    ratios = {(task, metric): 9.0 for task in (*AXES, "average", "heldout") for metric in ("acc", "bits_per_byte")}
    monkeypatch.setattr(moving, "signal_to_noise", lambda: ratios)
    figure = describe(moving, "figure_1")
    assert figure.panels[0].ylabel.startswith("accuracy (%)") and "Scores: accuracy, as it moves" in figure.caption
    assert len(describe(moving, "figure_4").panels) == 6  # a column more


def test_a_curve_for_each_seed(copy_published, tmp_path):
    root = tmp_path / "cpu"
    copy_published(("figure_7",), root)
    before, _ = describe(Study(root), "figure_7").panels
    shutil.copytree(root / "sft_pma-seed0", root / "sft_pma-seed1")
    figure = describe(Study(root), "figure_7")
    assert len(figure.panels[0].series) == len(before.series) + 2  # the curve and its spikes
    assert "2 seeds (training runs) of fine-tuning from PMA" in figure.caption


def test_spikes_stand_above_twice_the_median_of_the_steps_before():
    norms = pd.Series([1.0] * 30)
    norms[5], norms[25], norms[26] = 9.0, 2.1, 1.9
    assert gradient_spikes(norms).to_numpy().nonzero()[0].tolist() == [25]  # step 5 has no 20 steps before it


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
