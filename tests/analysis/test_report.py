"""The static report: the same numbers as the figures, and a page that works in a browser without any server."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "analysis"))

import interactive  # noqa: E402
import report  # noqa: E402
import style  # noqa: E402

PUBLISHED = ROOT / "runs" / "cpu" / "published"
FIGURES = ("figure_1", "figure_4", "figure_8", "table_1", "equation_15")


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory) -> Path:
    """A few published experiments with the runs they are about."""
    root = tmp_path_factory.mktemp("runs")
    for name in FIGURES:
        shutil.copytree(PUBLISHED / name, root / "cpu" / "published" / name)
        for run in json.loads((PUBLISHED / name / "manifest.json").read_text())["runs"]:
            shutil.copytree(PUBLISHED / run, root / "cpu" / "published" / run, dirs_exist_ok=True)
    return root


@pytest.fixture(scope="module")
def page(runs_dir, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "index.html"
    path.write_text(report.build(runs_dir, ROOT / "README.md"), encoding="utf-8")
    return path


def test_a_figure_is_read_back_as_it_was_drawn(runs_dir):
    source = style.Source(runs_dir / "cpu" / "published")
    panels = interactive.panels(importlib.import_module("figure_1").draw(source))
    table = style.scores(source, "figure_1")
    heldout = next(p for p in panels if p.title == "held-out text: value")
    sizes = source.sizes(table["run"].unique())
    for method, label in (("last", "last snapshot"), ("sma", "PMA (SMA)")):
        series = next(s for s in heldout.series if s.label == label)
        rows = (
            style.pick(table, task="heldout", metric="bits_per_byte", method=method).set_index("run").loc[list(sizes)]
        )
        np.testing.assert_allclose(series.y, rows["value"])
        np.testing.assert_allclose(series.error, rows["error"])
    told = interactive.rows(heldout)
    assert len(told) == 1 + 2 * len(sizes) and told[1][1].startswith("576k")


def test_the_page_asks_nothing_of_any_server(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"<(script|img|iframe)[^>]+src=|<link ", text)
    assert text.count("<tr data-verdict=") == 17
    assert len(text.encode()) < 5_000_000


def _chromium(playwright) -> str:
    own = playwright.chromium.executable_path
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), own)
    if not Path(found).exists():
        pytest.skip("no Chromium here: make browser")
    return found


@pytest.mark.parametrize("width,scheme", [(390, "dark"), (1280, "light")])
def test_the_page_in_a_browser(page, width, scheme):
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
        assert up != down and [report.VERDICTS.index(v) for v in up] == sorted(report.VERDICTS.index(v) for v in up)
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
        assert Path(download.value.path()).read_bytes() == (PUBLISHED / "figure_1" / "records.csv").read_bytes()
        assert problems == []
        browser.close()


def test_the_wandb_report_says_the_same_without_a_login(runs_dir, tmp_path, monkeypatch, capsys):
    wandb_report = importlib.import_module("wandb_report")
    monkeypatch.setattr(
        sys, "argv", ["wandb_report", "--project", "p", "--runs-dir", str(runs_dir), "--out", str(tmp_path)]
    )
    wandb_report.main()
    assert "wandb login" in capsys.readouterr().out
    spec = json.loads((tmp_path / "wandb-report.json").read_text())
    grids = [block for block in spec["blocks"] if block["type"] == "panel-grid"]
    assert len(grids) == 3 * len(FIGURES)
    assert '"figure_4"' in json.dumps(grids)
    words = (tmp_path / "wandb-report.md").read_text()
    assert "**C1**" in words and "What differs from the paper" in words and "hours of training" in words
