"""Every experiment at SCALE=smoke, end to end through the commands that a user types."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import yaml
from smoke_runs import call, link_runs

from pma.config import CONF_DIR, ROOT
from pma.records import COLUMNS, read_records


def test_a_second_call_does_nothing(smoke_runs):
    arguments = ["experiment=all", "scale=smoke", f"runs_dir={smoke_runs}", "tracking=off"]
    again = call("-m", "pma.reproduce", *arguments)
    assert again.returncode == 0 and "nothing to do" in again.stdout, again.stderr


def test_records_hold_every_recipe_at_every_point(smoke_runs):
    table = read_records(smoke_runs / "smoke" / "figure_4" / "records.csv")
    assert list(table.columns) == COLUMNS
    averages = table[(table["task"] == "average") & (table["metric"] == "acc")]
    points = [int(point * 512) for point in (25.5, 56.5, 139, 200)]
    for method in ("last", "sma", "wma", "ema_0.1", "ema_0.2"):
        assert set(points) <= set(averages.loc[averages["method"] == method, "tokens"]), method
    assert averages["value"].between(0, 1).all()
    assert table["config_hash"].nunique() == 1
    # The merges are not all the same model.
    bits = table[(table["task"] == "average") & (table["metric"] == "bits_per_byte") & (table["tokens"] == points[0])]
    assert bits["value"].nunique() == 5


def test_single_items_average_to_the_record(smoke_runs):
    folder = smoke_runs / "smoke" / "figure_4"
    merge = ["run", "seed", "tokens", "method", "n", "interval", "suite", "task", "metric"]
    items = pd.read_parquet(folder / "items.parquet").set_index(merge)["values"].map(lambda values: values.mean())
    both = read_records(folder / "records.csv").set_index(merge).join(items.rename("mean"), how="inner")
    assert len(both) > 100 and both["value"].to_numpy() == pytest.approx(both["mean"].to_numpy(), abs=1e-5)


def test_everything_is_drawn_and_judged_from_the_records(smoke_runs, tmp_path):
    folders = ["--scale=smoke", f"--runs-dir={smoke_runs}", f"--out-dir={tmp_path}"]
    drawn = call("analysis/draw.py", *folders)
    assert drawn.returncode == 0, drawn.stderr
    names = {path.stem for path in (CONF_DIR / "experiment").glob("*.yaml")} - {"all", "beyond"}
    assert names <= {path.stem for path in (tmp_path / "smoke").glob("*.png")}
    judged = call("analysis/claims.py", *folders)
    assert judged.returncode == 0, judged.stderr
    table = pd.read_csv(tmp_path / "smoke" / "claims.csv")
    rules = yaml.safe_load((ROOT / "analysis" / "claims.yaml").read_text(encoding="utf-8"))
    assert list(dict.fromkeys(table["claim"])) == list(rules["claims"])
    # All that one seed lacks is other seeds.
    assert table.loc[table["outcome"] == "not run", "reason"].str.contains("at least 2").all()


def test_a_question_left_open_is_trained_scored_and_judged(smoke_runs, tmp_path):
    """B5: two more decays of one trunk, with their data in other orders, and the merge of all three."""
    link_runs(smoke_runs, tmp_path, "moe_main-seed0", "annealed_moe_main-seed0")
    arguments = ["experiment=beyond/merged_orders", "scale=smoke", f"runs_dir={tmp_path}", "tracking=off"]
    done = call("-m", "pma.reproduce", *arguments)
    assert done.returncode == 0, done.stderr
    table = read_records(tmp_path / "smoke" / "merged_orders" / "records.csv")
    text = table[(table["task"] == "heldout")].set_index(["run", "method", "n", "interval"])["value"]
    runs = ["annealed_moe_main", "annealed_order_1", "annealed_order_2"]
    assert set(text.index) == {*((run, "last", 1, 512) for run in runs), (runs[0], "sma", 3, 0)}
    assert text.nunique() == 4
    folders = ["--scale=smoke", f"--runs-dir={tmp_path}", f"--out-dir={tmp_path / 'out'}"]
    done = call("analysis/claims.py", *folders)
    assert done.returncode == 0, done.stderr
    judged = pd.read_csv(tmp_path / "out" / "smoke" / "seeds.csv")
    assert set(judged["claim"]) == {"B5"} and set(judged["seed"]) == {0}  # shown, never counted


def test_the_merge_command_makes_a_model_that_scores_as_the_record_says(smoke_runs, tmp_path):
    merged, scores = tmp_path / "merged", tmp_path / "scores.json"
    run, window = smoke_runs / "smoke" / "moe_main-seed0", ["method=wma", "n=10", "interval=512", "end=102400"]
    done = call("-m", "pma.merge", f"run_dir={run}", *window, f"output={merged}")
    assert done.returncode == 0, done.stderr
    done = call("-m", "pma.evaluate", f"model={merged}", f"output={scores}", f"cache_dir={tmp_path / 'cache'}")
    assert done.returncode == 0, done.stderr
    values = pd.DataFrame(json.loads(scores.read_text())["scores"]).set_index(["task", "metric"])["value"]
    table = read_records(smoke_runs / "smoke" / "figure_4" / "records.csv")
    row = table[(table["method"] == "wma") & (table["tokens"] == 102400)].set_index(["task", "metric"])["value"]
    for metric in ("acc", "bits_per_byte"):
        assert values["average", metric] == pytest.approx(row["average", metric], rel=1e-6)
    # And as lm-eval's own command says.
    tasks = next(path for path in (tmp_path / "cache").glob("*-tasks"))
    model = ["--model", "hf", "--model_args", f"pretrained={merged},dtype=float32", "--device", "cpu"]
    which = ["--include_path", str(tasks), "--tasks", "pma_proxy_math", "--output_path", str(tmp_path / "lm_eval")]
    done = call("-m", "lm_eval", *model, *which)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(next((tmp_path / "lm_eval").rglob("results_*.json")).read_text())["results"]["pma_proxy_math"]
    assert theirs["bits_per_byte,none"] == pytest.approx(values["math", "bits_per_byte"], rel=1e-4)


def test_user_errors_are_one_line_and_leave_nothing(smoke_runs, tmp_path):
    run, output = smoke_runs / "smoke" / "moe_main-seed0", tmp_path / "merged"
    merge = ["-m", "pma.merge", f"run_dir={run}", "method=sma", "n=3", "interval=7", "end=512", f"output={output}"]
    window = call(*merge)
    assert window.returncode == 1 and window.stderr.startswith("error: ") and window.stderr.count("\n") == 1
    assert "no snapshot at" in window.stderr and not output.exists()
    key = call("-m", "pma.train", "scale=smoke", "schedule.peak=1")
    assert key.returncode != 0 and "schedule.peak" in key.stderr
