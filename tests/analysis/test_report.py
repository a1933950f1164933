"""The static report: the same numbers as the figures, and a page that works in a browser without any server."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import report
import wandb_report
from drawing import chart
from drawing.curves import CURVES
from drawing.find import describe
from finding import finding
from page import build
from page.captions import said_once
from page.paper import beside
from records import Study
from run_script import call
from verdicts.decide import VERDICTS, decide, families
from verdicts.readme import deviations
from verdicts.rules import load_rules
from verdicts.tables import parts_text
from wandb_workspaces.reports.v2.internal import Spec, UnknownBlock

FIGURES = ("figure_1", "figure_3", "figure_4", "figure_5", "figure_8", "table_1", "equation_15", "learning_rate")


@pytest.fixture(scope="module")
def runs_dir(copy_published, write_study, tmp_path_factory) -> Path:
    """A few published experiments with the runs they are about, and a study of one's own."""
    root = tmp_path_factory.mktemp("runs")
    copy_published(FIGURES, root / "cpu" / "published")
    write_study(root / "cpu" / "published")
    return root


@pytest.fixture(scope="module")
def small_dir(copy_published, tmp_path_factory) -> Path:
    """The published experiments that the finding is made of, alone."""
    root = tmp_path_factory.mktemp("small")
    copy_published(("figure_3", "figure_5"), root / "cpu" / "published")
    return root


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
    assert not re.search(r'<(script|img|iframe)[^>]+src=|<link [^>]*href="(?!data:)', text)
    assert "default-src 'none'" in text  # and the browser would refuse
    assert len(text.encode()) < 5_000_000


def test_every_claim_has_an_anchor_that_lasts(page):
    text = page.read_text(encoding="utf-8")
    ids = re.findall(r'<tr role="row" id="(\w+)"', text)
    assert ids == [claim.name for claim in load_rules().claims]
    targets, places = set(re.findall(r'href="#([^"]+)"', text)), set(re.findall(r' id="([^"]+)"', text))
    assert targets <= places and set(ids) <= targets


def test_every_number_of_a_claim_is_the_judged_one(page, runs_dir):
    rules = load_rules()
    rules = replace(rules, claims=tuple(claim for claim in rules.claims if claim.name == "C5"))
    table = decide(runs_dir / "cpu" / "published", rules).seeds_table()
    row = page.read_text(encoding="utf-8").partition('id="C5"')[2].partition("</tr>\n<tr role")[0]
    for part, of_part in table[table["column"].str.startswith("merge")].groupby("part"):
        cells = re.search(rf'<th scope="row">{part}</th>(.*?)</tr>', row)[1]
        assert re.findall("<td>(.*?)</td>", cells) == [f"{value:+z.3f}" for value in of_part["value"]]


def test_rules_that_changed_after_the_data_are_said_to(write_study, tmp_path, monkeypatch):
    write_study(tmp_path / "cpu" / "published")
    claims, beyond = families(tmp_path)
    said = replace(claims, rules=replace(claims.rules, changed_after_data=("C13 has another condition",)))
    monkeypatch.setattr(build, "families", lambda _: (said, beyond))
    text = build.build(tmp_path)
    assert text.index("C13 has another condition") < text.index('id="claims-table"')


def _section(page: Path, name: str) -> str:
    text = page.read_text(encoding="utf-8")
    return text.partition(f'<section id="cpu-{name}"')[2].partition("</section>")[0]


def _legends(html: str) -> list[dict[str, str]]:
    """Names and swatches of every legend, in order."""
    entry = re.compile(r"<span>(<svg.*?</svg>)(.*?)</span>")
    return [
        {name: swatch for swatch, name in entry.findall(p)} for p in re.findall('<p class="legend">(.*?)</p>', html)
    ]


def test_legends_stand_by_group_and_swatches_tell_their_series_apart(page):
    html = _section(page, "figure_5").partition('class="folded"')[0]
    assert re.findall("<h3>(.*?)</h3>", html) == ["interval V, N = 10", "number N, interval V"]
    over_v, over_n = _legends(html)
    assert list(over_v) == ["V / 2", "V", "2 V", "4 V", "the paper"]
    assert list(over_n) == ["N = 3", "N = 6", "N = 10", "N = 15", "the paper"]
    for name in ("figure_4", "figure_8", "learning_rate"):
        for legend in _legends(_section(page, name)):
            assert len(set(legend.values())) == len(legend) > 0, (name, list(legend))
    assert "stroke-dasharray" in _legends(_section(page, "learning_rate"))[0]["PMA after 627k tokens"]


def test_every_panel_names_what_it_shows(page):
    titles = re.findall("<figcaption>(.*?)</figcaption>", page.read_text(encoding="utf-8"))
    assert len(titles) > 30 and "gain, four axes" in titles
    assert not [title for title in titles if title.strip() in ("", "gain")]


def test_what_captions_share_is_said_once(page):
    common, own = said_once({"a": "Axes do not start at 0. V = 1.5k.", "b": "N = 10. Axes do not start at 0."})
    assert common == {"Axes do not start at 0.": ["a", "b"]} and own == {"a": "V = 1.5k.", "b": "N = 10."}
    text = page.read_text(encoding="utf-8")
    assert text.count("Axes of values do not start at 0.") == 1
    assert text.count("Signal to noise of accuracy") <= 4  # each of them names other tasks


def test_the_papers_numbers_stand_on_our_axes(runs_dir):
    study = Study(runs_dir / "cpu" / "published")
    figure = describe(study, "figure_4")
    (panel,) = beside(study, "figure_4", figure.blocks[0])
    series = {one.label: one for one in panel.series}
    value, gain = figure.blocks[0].rows[0][0], figure.blocks[0].rows[1][0]
    last, sma = (next(s.y for s in p.series if s.label == name) for p, name in ((value, "last"), (gain, "SMA")))
    np.testing.assert_allclose(series["SMA"].y, 100 * sma / last)
    paper = series["the paper: SMA"]
    assert paper.y[0] == pytest.approx(100 * (47.01 / 45.93 - 1))
    # At the bars that it belongs to: we have a point more than the paper, between its first two.
    np.testing.assert_array_equal(paper.x, series["SMA"].x[[0, 2, 3, 4]])
    sizes = {one.label: one for one in beside(study, "figure_1", describe(study, "figure_1").blocks[0])[0].series}
    assert sizes["the paper: HumanEval"].y == pytest.approx([100 * (36.6 / 31.1 - 1), 100 * (61.6 / 54.3 - 1)])
    assert len(sizes["code (for HumanEval), bits per byte"].x) == 4


def test_the_page_holds_every_experiment_and_deviation(page):
    text = page.read_text(encoding="utf-8")
    ids = re.findall(r'<section id="cpu-(\w+)"', text)
    assert ids == [*FIGURES, "my_study"]
    assert "Merging in a study of one&#39;s own" in text
    listed = text.partition('<section id="deviations">')[2].partition("</section>")[0]
    assert listed.count("<li>") == len(deviations()) > 5 and "<code>conf/model/paper</code>" in listed


def _chromium(playwright) -> str:
    own = playwright.chromium.executable_path
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), own)
    if not Path(path).exists():
        pytest.skip("no Chromium here: make browser")
    return path


@pytest.mark.parametrize(("width", "height", "scheme"), [(390, 844, "dark"), (1280, 800, "light")])
def test_the_page_in_a_browser(page, published_cpu, width, height, scheme):
    from playwright.sync_api import sync_playwright

    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_chromium(playwright), args=quiet)
        size = {"width": width, "height": height}
        tab = browser.new_page(viewport=size, color_scheme=scheme, accept_downloads=True, has_touch=width < 500)
        problems: list[str] = []
        tab.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("request", lambda r: None if r.url.startswith(("file:", "blob:", "data:")) else problems.append(r.url))
        tab.goto(page.as_uri())
        _sees_the_finding_first(tab, size)
        _sees_every_verdict(tab, width)
        _sorts_and_filters(tab, width)
        _reads_values(tab, width)
        ink = tab.evaluate("getComputedStyle(document.body).color")
        assert ink == ("rgb(230, 233, 236)" if scheme == "dark" else "rgb(31, 35, 40)")
        _follows_an_anchor(tab)

        # the records behind a figure
        tab.locator("#cpu-figure_1 .values > summary").click()
        with tab.expect_download() as download:
            tab.locator("#cpu-figure_1 .download", has_text="records.csv").click()
        given, published = (
            pd.read_csv(path) for path in (download.value.path(), published_cpu / "figure_1/records.csv")
        )
        pd.testing.assert_frame_equal(given, published, rtol=1e-5)
        assert problems == []
        browser.close()


def _sees_the_finding_first(tab, size: dict[str, int]) -> None:
    """Finding, picture and advice lie on the first screen, and the first key press offers to skip it."""
    tab.wait_for_selector(".front .chart[data-drawn=yes]")
    for part in (".lede", ".front .chart", ".front ul"):
        box = tab.locator(part).bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= size["height"], part
        assert box["x"] >= 0 and box["x"] + box["width"] <= size["width"], part
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    assert tab.locator(".skip").bounding_box()["x"] >= 0


def _sees_every_verdict(tab, width: int) -> None:
    boxes = [verdict.bounding_box() for verdict in tab.locator("#claims-table .verdict").all()]
    assert len(boxes) == len(load_rules().claims)
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def _sorts_and_filters(tab, width: int) -> None:
    verdicts = tab.locator("#claims-table tbody tr:visible .verdict")
    if width > 800:  # cards have no heads
        head = tab.locator("#claims-table thead button", has_text="verdict")
        head.click()
        up = verdicts.all_inner_texts()
        head.press("Enter")  # by keyboard
        down = verdicts.all_inner_texts()
        assert up != down and [VERDICTS.index(v) for v in up] == sorted(VERDICTS.index(v) for v in up)
        assert sorted(up) == sorted(down)
    tab.select_option("#by-verdict", "not run")
    assert set(verdicts.all_inner_texts()) == {"not run"}
    assert tab.inner_text("#shown") == f"{verdicts.count()} of {len(load_rules().claims)} claims"
    tab.select_option("#by-verdict", "")


def _reads_values(tab, width: int) -> None:
    """A chart is drawn when it comes into view; a pointer, a finger and the arrow keys read its values."""
    chart = tab.locator("#cpu-figure_4 .chart").first
    chart.scroll_into_view_if_needed()
    tab.wait_for_selector("#cpu-figure_4 .chart[data-drawn=yes]")
    box, tip = chart.bounding_box(), tab.locator("#cpu-figure_4 .tip").first
    point = box["x"] + 0.5 * box["width"], box["y"] + 0.3 * box["height"]
    (tab.touchscreen.tap if width < 500 else tab.mouse.move)(*point)
    tip.wait_for(state="visible")
    first = tip.inner_text()
    assert re.search(r"^[\d.]+[kM]\n", first) and re.search(r"WMA: -?0\.\d+", first)
    chart.focus()
    for _ in range(4):
        tab.keyboard.press("ArrowRight")
    assert "WMA" in tip.inner_text() and tip.inner_text() != first
    tab.keyboard.press("Escape")
    assert tip.is_hidden()


def _follows_an_anchor(tab) -> None:
    """The address of a claim leads to it, and opens how it was decided: a row of dots for each number."""
    assert tab.locator("#C6 details").get_attribute("open") is None
    tab.evaluate("location.hash = '#C6'")
    tab.wait_for_selector("#C6 details[open] .chart[data-drawn=yes]")
    assert "every method over the last snapshot" in tab.locator("#C6 details table").first.inner_text()
    chart, tip = tab.locator("#C6 .chart").first, tab.locator("#C6 .tip").first
    chart.focus()
    tab.keyboard.press("ArrowRight")
    tip.wait_for(state="visible")
    assert re.search(r"^a: .*\nmean: -?\d.*\nruns: \(", tip.inner_text())  # seed 0 first, which does not count
    assert tab.evaluate("document.documentElement.scrollWidth") <= tab.viewport_size["width"]


def _panels(block: dict) -> list[str]:
    """What the panels of a grid show: keys of pictures, metrics, or patterns of metrics."""
    configs = [panel["config"] for panel in block["metadata"]["panelBankSectionConfig"]["panels"]]
    return [key for c in configs for key in c.get("mediaKeys") or c.get("metrics") or [c["metricRegex"]]]


def test_the_wandb_report_has_each_figure_once_and_the_curves_once(runs_dir, tmp_path, monkeypatch, capsys):
    call(monkeypatch, wandb_report, "--project=p", f"--runs-dir={runs_dir}", f"--out={tmp_path}")
    assert "wandb login" in capsys.readouterr().out
    text = (tmp_path / "wandb-report.json").read_text()
    spec = json.loads(text)
    read = Spec.model_validate_json(text).blocks  # as wandb-workspaces reads a report that W&B keeps
    assert [block.type for block in read] == [block["type"] for block in spec["blocks"]]
    assert not any(isinstance(block, UnknownBlock) for block in read)
    grids = [block for block in spec["blocks"] if block["type"] == "panel-grid"]
    shown = [key for block in grids for key in _panels(block)]
    for key in (*FIGURES, "my_study", *CURVES):
        assert shown.count(key) == 1, key
    (curves,) = [block for block in grids if "tokens_per_second" in _panels(block)]
    names = [runset["name"] for runset in curves["metadata"]["runSets"]]
    assert names[0] == "Figure 1" and "My study" in names
    filters = [f for runset in curves["metadata"]["runSets"] for f in runset["filters"]["filters"]]
    runs = [run for f in filters if f["key"]["name"] == "run_name" for run in f["value"]]
    recorded = Study(runs_dir / "cpu" / "published").run_folders()
    assert len(runs) == len(set(runs)) and set(runs) == {folder.rpartition("-seed")[0] for folder in recorded}
    plots = [panel["config"] for panel in curves["metadata"]["panelBankSectionConfig"]["panels"]]
    assert {plot["groupBy"] for plot in plots} == {"run_name.value"}  # a line is the mean over seeds
    heads = [b["children"][0]["text"] for b in spec["blocks"] if b["type"] == "heading" and b["level"] == 1]
    assert heads == ["Finding", "Figures", "The paper's claims", "What differs from the paper", "Cost", "Conclusion"]


def test_the_report_in_markdown_reads_alone(small_dir, tmp_path):
    place, published = tmp_path / "wandb-report.md", small_dir / "cpu" / "published"
    text = wandb_report.sample(small_dir, place)
    found = finding(Study(published))
    assert all(sentence in text for sentence in (found.sentence, found.second, *found.advice))
    table = [line for line in text.splitlines() if line.startswith("| C")]
    decisions = decide(published, load_rules())
    assert len(table) == len(decisions) and text.count("\n") < 400
    for line, decision in zip(table, decisions, strict=True):
        assert f"**{decision.verdict}**" in line
        for judged in decision.parts:
            assert f"{judged.part.name} {judged.verb}" in line
        for shown in re.findall(rf"\*\*{decision.claim.name}, partly\*\* \((.*?)\)[:\n]", text):
            assert shown == parts_text(decision)
    links = re.findall(r'(?:\]\(|src="|srcset=")([^)"]+\.svg)', text)
    assert len(links) == 4 and all((tmp_path / link).resolve().is_file() for link in links)


def test_verify_finds_a_report_that_is_older_than_its_records(small_dir, tmp_path, monkeypatch):
    place = tmp_path / "wandb-report.md"
    assert "--sample" in wandb_report.stale_sample(small_dir, place)[0]
    call(monkeypatch, wandb_report, f"--sample={place}", f"--runs-dir={small_dir}")
    assert wandb_report.stale_sample(small_dir, place) == []
    place.write_text(place.read_text().replace("saves 0.", "saves 1.", 1))
    assert len(wandb_report.stale_sample(small_dir, place)) == 1
