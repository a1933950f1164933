"""The static report: the same numbers as the figures, and a page that works in a browser without any server."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import report
import wandb_report
from drawing import chart
from drawing.find import describe
from records import Study
from verdicts.decide import VERDICTS
from verdicts.readme import deviations

FIGURES = ("figure_1", "figure_4", "figure_8", "table_1", "equation_15")


@pytest.fixture(scope="module")
def runs_dir(copy_published, write_study, tmp_path_factory) -> Path:
    """A few published experiments with the runs they are about, and a study of one's own."""
    root = tmp_path_factory.mktemp("runs")
    copy_published(FIGURES, root / "cpu" / "published")
    write_study(root / "cpu" / "published")
    return root


def call(monkeypatch, module, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    module.main()


@pytest.fixture(scope="module")
def page(runs_dir, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as monkeypatch:
        call(monkeypatch, report, f"--runs-dir={runs_dir}", f"--out={out}")
    return out / "index.html"


def _columns(item: dict) -> list[dict]:
    """Data of every source of a Bokeh chart, in order."""
    models = [item["doc"]["roots"]]
    columns = []
    while models:
        model = models.pop(0)
        if isinstance(model, dict):
            if model.get("name") == "ColumnDataSource":
                columns.append(dict(model["attributes"]["data"]["entries"]))
            models += model.values()
        elif isinstance(model, list):
            models += model
    return columns


def test_charts_and_tables_hold_what_the_figure_describes(runs_dir):
    figure = describe(Study(runs_dir / "cpu" / "published"), "figure_1")
    heldout = next(panel for panel in figure.panels if panel.title == "held-out text")
    sources = [columns for columns in _columns(chart.chart(heldout)) if "group" in columns]
    assert [list(columns["group"]) for columns in sources] == [
        ["576k for 1.3B/ 13B", "843k for 3B/ 30B", "1.43M for 10B/ 100B", "2.48M for 20B/ 200B"]
    ] * 2
    rows = chart.rows(heldout)
    values = np.concatenate([series.y for series in heldout.series])
    assert [float(row[2]) for row in rows[1:]] == pytest.approx(values, abs=1e-4)
    assert rows[1][:2] == ["last snapshot", "576k for 1.3B/ 13B"]


def test_the_page_asks_nothing_of_any_server(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"<(script|img|iframe)[^>]+src=|<link ", text)
    assert text.count("<tr data-verdict=") == 17
    assert len(text.encode()) < 5_000_000


def test_the_page_holds_every_experiment_and_deviation(page):
    text = page.read_text(encoding="utf-8")
    ids = re.findall(r'<section id="cpu-(\w+)">', text)
    assert ids == ["figure_1", "figure_4", "figure_8", "table_1", "equation_15", "my_study"]
    assert "Merging in a study of one&#39;s own" in text
    listed = text.partition('<section id="deviations">')[2].partition("</section>")[0]
    assert listed.count("<li>") == len(deviations()) > 5 and "<code>conf/model/paper</code>" in listed


def _chromium(playwright) -> str:
    own = playwright.chromium.executable_path
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), own)
    if not Path(path).exists():
        pytest.skip("no Chromium here: make browser")
    return path


@pytest.mark.parametrize("width,scheme", [(390, "dark"), (1280, "light")])
def test_the_page_in_a_browser(page, published_cpu, width, scheme):
    from playwright.sync_api import sync_playwright

    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_chromium(playwright), args=quiet)
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True)
        problems: list[str] = []
        tab.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("request", lambda r: None if r.url.startswith(("file:", "blob:", "data:")) else problems.append(r.url))
        tab.goto(page.as_uri())

        # the table sorts both ways and filters
        verdicts = tab.locator("#claims-table tbody tr:visible .verdict")
        head = tab.locator("#claims-table thead button", has_text="verdict")
        head.click()
        up = verdicts.all_inner_texts()
        head.press("Enter")  # by keyboard
        down = verdicts.all_inner_texts()
        assert up != down and [VERDICTS.index(v) for v in up] == sorted(VERDICTS.index(v) for v in up)
        assert sorted(up) == sorted(down)
        tab.select_option("#by-verdict", "not run")
        assert set(verdicts.all_inner_texts()) == {"not run"}
        assert tab.inner_text("#shown") == f"{verdicts.count()} of 17 claims"

        # charts are drawn when they come into view, and show values under the pointer
        chart = tab.locator("#cpu-figure_1 .ours .chart").first
        chart.scroll_into_view_if_needed()
        tab.wait_for_selector("#cpu-figure_1 .ours .chart[data-drawn=yes]")
        box = chart.bounding_box()
        tip = tab.locator(".bk-tooltip-content", has_text=re.compile("last snapshot|PMA"))
        for share in (0.3, 0.35, 0.4, 0.45, 0.5, 0.55):
            tab.mouse.move(box["x"] + share * box["width"], box["y"] + 0.6 * box["height"])
            tab.wait_for_timeout(100)
            if tip.count():
                break
        assert re.search(r"\n2\.\d+ \u00b1 0\.\d+", tip.first.inner_text())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        ink = tab.evaluate("getComputedStyle(document.body).color")
        assert ink == ("rgb(230, 233, 236)" if scheme == "dark" else "rgb(31, 35, 40)")

        # the records behind a figure
        with tab.expect_download() as download:
            tab.locator("#cpu-figure_1 .download", has_text="records.csv").click()
        assert Path(download.value.path()).read_bytes() == (published_cpu / "figure_1" / "records.csv").read_bytes()
        assert problems == []
        browser.close()


def test_the_wandb_report_says_the_same_without_a_login(runs_dir, tmp_path, monkeypatch, capsys):
    call(monkeypatch, wandb_report, "--project=p", f"--runs-dir={runs_dir}", f"--out={tmp_path}")
    assert "wandb login" in capsys.readouterr().out
    spec = json.loads((tmp_path / "wandb-report.json").read_text())
    grids = [block for block in spec["blocks"] if block["type"] == "panel-grid"]
    assert len(grids) == 3 * (len(FIGURES) + 1)
    assert '"figure_4"' in json.dumps(grids) and '"my_study"' in json.dumps(grids)
    words = (tmp_path / "wandb-report.md").read_text()
    assert "**C1**" in words and "What differs from the paper" in words and "hours of training" in words
