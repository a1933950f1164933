"""The claims on synthetic records whose truth is known."""

from __future__ import annotations

import json
import math
import shutil
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import yaml

from pma.config import CONF_DIR, ROOT
from pma.records import COLUMNS

sys.path.insert(0, str(ROOT / "analysis"))
import claims as claims_module  # noqa: E402
from claims import BEGIN, END, compare, decide, load_claims, ours, readme_block, result_table, screen  # noqa: E402
from resampling import holm, interval, over_blocks, p_value, trend, weights  # noqa: E402
from study import Study  # noqa: E402

V = 1024  # tokens
AXES = {"proxy": ["code", "reasoning", "knowledge", "math"], "instruct": ["knowledge", "math", "ood"]}
SIZE = {"moe_3b_30b": 2, "moe_10b_100b": 4, "moe_20b_200b": 8, "dense_2b": 2, "dense_8b": 4, "dense_70b": 8}
RATE = {"lr_quarter": 0.25, "lr_half": 0.5, "lr_double": 2, "lr_quadruple": 4}
FORK = {"annealed_moe_main": (168, 200), "annealed_moe_3b_30b": (40, 50), "annealed_moe_10b_100b": (40, 50)}
ITEMS = 40


@dataclass(frozen=True)
class World:
    """What is true in it; the defaults are what the paper says."""

    heat: float = 0.1  # what a constant learning rate costs, bits per byte; merging takes most of it away
    noise: float = 0.03  # of an item's score between two models
    recovers: bool = True  # the run resumed from a mean of snapshots
    control_recovers: bool = False
    collapses: bool = True
    accuracy_sign: int = 1  # -1: accuracy falls where bits per byte improve
    items: int = ITEMS

    def bits(self, run: str, point: float, method: str, n: int, interval: float) -> float:
        """True score of a model."""
        sign = math.copysign(1, self.heat) if self.heat else 0
        if run.startswith("sft_"):
            return 2.2 - 0.01 * point - 0.02 * sign * ("pma" in run)
        if run.startswith("continued"):
            return 2.4
        heat, level = self.heat * RATE.get(run, 1) ** 0.5, 3 - 0.05 * math.log(point)
        if run in FORK:
            fork, end = FORK[run]
            heat *= 1 - (point - fork) / (end - fork)
        if method == "last":
            return level + heat
        if method != "sma":
            early = {"wma": 0.5, "ema_0.2": 0.7, "ema_0.1": 1.2}[method] if point < 30 else 1.0
            return level + early * (heat / n + self._stale(point, 9, sign))
        best = SIZE.get(run, 1) / 2
        mismatch = 0.01 * sign * math.log2(interval / best) ** 2 if n == 6 and run != "moe_main" else 0.0
        return level + heat / n + self._stale(point, (n - 1) * interval, sign) * (run == "moe_main") + mismatch

    def _stale(self, point: float, window: float, sign: float) -> float:
        return 0.4 * sign * (window / point) ** 2


def _rng(*key: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def _write_experiment(folder: Path, experiment: dict, world: World) -> None:
    records, items = [], []
    for part in experiment.get("parts", []):
        suite, recipes = part.get("suite", "proxy"), part.get("recipes", [])
        wanted = [(p, r) for p in part.get("points", []) for r in recipes if p in r.get("points", [p])]
        wanted += [(max(part["points"]) - i, {"method": "last"}) for i in range(1, part.get("noise_points", 0))]
        for run in part["runs"]:
            for seed in range(part.get("seeds", 1)):
                for point, recipe in wanted:
                    rows, values = _score(run, seed, point, recipe, suite, world)
                    records += [{**row, "scale": "cpu", "experiment": experiment["name"]} for row in rows]
                    items += values
    out = folder / experiment["name"]
    out.mkdir()
    if records:
        pd.DataFrame(records).assign(stderr=0.0, config_hash="0")[COLUMNS].to_csv(out / "records.csv", index=False)
        pd.DataFrame(items).to_parquet(out / "items.parquet")
    runs = [f"{run}-seed0" for part in experiment.get("parts", []) for run in part["runs"]]
    manifest = {"runs": dict.fromkeys(runs, "0"), "merge_interval": V, "seconds": 6.0}
    (out / "manifest.json").write_text(json.dumps(manifest))


def _score(run: str, seed: int, point: float, recipe: dict, suite: str, world: World) -> tuple[list, list]:
    n, interval, alpha = recipe.get("n", 1), recipe.get("interval", 1), recipe.get("alpha")
    method = recipe["method"] + (f"_{alpha:g}" if alpha else "")
    key = {"run": run, "seed": seed, "tokens": round(point * V), "method": method, "n": n}
    key |= {"interval": round(interval * V), "suite": suite}
    truth = world.bits(run, point, method, n, interval)
    rows, items, means = [], [], {"acc": [], "bits_per_byte": []}
    for task in AXES[suite]:
        difficulty = _rng("item", suite, task).normal(0, 0.8, world.items)
        noise = _rng(run, seed, point, method, n, interval, suite, task).normal(0, world.noise, world.items)
        bits = truth + difficulty + noise
        side = truth - 2.8 if world.accuracy_sign > 0 else 2.8 - truth
        right = (difficulty + 4 * side + noise < 0).astype(float)
        for metric, values in (("acc", right), ("bits_per_byte", bits)):
            items.append({**key, "task": task, "metric": metric, "values": values.astype(np.float32)})
            means[metric].append(values.mean())
    for metric, of_tasks in means.items():
        rows.append({**key, "task": "average", "metric": metric, "value": np.mean(of_tasks)})
    return rows, items


def _write_run(folder: Path, run: str, world: World) -> None:
    out = folder / f"{run}-seed0"
    out.mkdir()
    fork, end = FORK.get(run, (0, 50))
    config = {
        "schedule": {"peak_lr": 4e-3 * RATE.get(run, 1)},
        "init": {"parent": {"tokens": fork * V}},
        "train": {"total_tokens": end * V},
    }
    (out / "config.yaml").write_text(yaml.safe_dump(config))
    manifest = {"parameters": {"total": 500_000 * SIZE.get(run, 1)}, "seconds": 60.0}
    (out / "manifest.json").write_text(json.dumps(manifest))
    steps, rng = np.arange(1, 161), _rng(run, "curve")
    sign = math.copysign(1, world.heat) if world.heat else 0
    loss = 2.4 - 0.0005 * steps + 0.02 * _rng("batches").normal(size=160) + 0.003 * rng.normal(size=160)
    loss -= 0.1 * sign * np.exp(-steps / 20) * ("pma" in run)
    stays = {"spike": not world.collapses, "spike_pma": world.recovers, "spike_last": world.control_recovers}.get(
        run, True
    )
    loss += 3 * (steps > 80) * (not stays)
    norm = np.exp((0.15 - 0.05 * sign * ("pma" in run)) * rng.normal(size=160)) * (1 - 0.2 * sign * ("pma" in run))
    rows = list(zip(steps, loss, norm, strict=True))[60 if run in ("spike_pma", "spike_last") else 0 :]
    lines = [json.dumps({"tokens": int(s) * 64, "loss": a, "lr": 1e-3, "gradient_norm": g}) for s, a, g in rows]
    (out / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def _write_measurements(folder: Path, world: World) -> None:
    rows, sign = [], math.copysign(1, world.heat) if world.heat else 0
    for plane in ("principal", "weights"):
        angles = 2 * np.pi * np.arange(10) / 10
        dots = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        optimum = (0.25, 0.0) if sign > 0 else (1.0, 0.0)
        points = [("grid", i / 4, j / 4) for i in range(-6, 7) for j in range(-6, 7)]
        points += [("snapshot", *dot) for dot in dots] + [("merged", 0.0, 0.0)]
        far = 0.0 if sign > 0 else 3.0  # then the merged model lies outside the snapshots
        for role, x, y in points:
            x += far if role == "merged" else 0.0
            value = 2 + (x - optimum[0]) ** 2 + (y - optimum[1]) ** 2
            rows.append(("moe_main", "mean", plane, role, 0, x, y, "bits_per_byte", value))
    columns = ["run", "reference", "plane", "role", "snapshot", "x", "y", "metric", "value"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "figure_8" / "landscape.csv", index=False)
    terms, losses, annealed = [], [], "annealed_moe_main"
    for run, reference in (("moe_main", annealed), ("moe_main", "mean"), (annealed, annealed)):
        d = _rng(run, reference).normal(size=(10, 60)) + (reference != "mean")
        signs = np.where(np.arange(60) < (60 if sign > 0 else 20), 1.0, -1.0)  # of the curvature
        matrix = (d * signs) @ d.T / 1000
        terms += [(run, reference, "hessian", i + 1, j + 1, matrix[i, j]) for i in range(10) for j in range(10)]
        losses += [(run, reference, f"snapshot_{i}", 2.5) for i in range(1, 11)] + [(run, reference, "merged", 2.47)]
    out = folder / "equation_15"
    pd.DataFrame(terms, columns=["run", "reference", "term", "i", "j", "value"]).to_csv(out / "curvature_terms.csv")
    pd.DataFrame(losses, columns=["run", "reference", "name", "value"]).to_csv(out / "curvature_losses.csv")


def write_world(folder: Path, world: World) -> Path:
    """Records of every experiment of conf/experiment, as pma.reproduce leaves them."""
    folder.mkdir(parents=True)
    runs = set()
    for path in sorted((CONF_DIR / "experiment").glob("*.yaml")):
        experiment = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not experiment.get("includes"):
            _write_experiment(folder, experiment, world)
            runs |= {run for part in experiment.get("parts", []) for run in part["runs"]}
    for run in sorted(runs):
        _write_run(folder, run, world)
    _write_measurements(folder, world)
    return folder


@pytest.fixture(scope="module")
def rules() -> dict:
    rules = load_claims()
    rules["common"]["draws"] = 4999
    return rules


@pytest.fixture(scope="module")
def paper(tmp_path_factory) -> Path:
    return write_world(tmp_path_factory.mktemp("paper") / "cpu", World())


@pytest.fixture(scope="module")
def decided(paper, rules) -> list:
    return decide(paper, rules)


def verdicts(decisions: list) -> dict[str, str]:
    return {decision.claim: decision.verdict for decision in decisions}


def test_a_world_as_the_paper_says_replicates_every_claim(decided):
    failed = {d.claim: d.sentence for d in decided if d.verdict != "replicated"}
    assert not failed
    assert [d.claim for d in decided] == [f"C{i}" for i in range(1, 18)]


def test_estimates_are_the_truth_and_intervals_hold_it(decided):
    gains = {j.test.statistic: j for d in decided if d.claim == "C5" for j in d.judged}
    early = gains["PMA against annealing, first point"]
    world = World()
    stands = world.bits("annealed_moe_main", 172, "last", 1, 1) - world.bits("moe_main", 172, "sma", 10, 1)
    assert early.estimate == pytest.approx(stands, abs=0.01)
    assert early.low < stands < early.high
    assert early.test.items == 4 * ITEMS


def test_absent_effects_are_not_replicated(tmp_path, rules):
    found = verdicts(decide(write_world(tmp_path / "cpu", World(heat=0.0, noise=0.015)), rules))
    for claim in ("C1", "C2", "C6", "C7", "C8", "C10", "C12", "C15", "C17"):
        assert found[claim] == "not replicated", claim
    # No gain, no margin: whether it shrinks with size is not a question then.
    assert found["C3"] == "not testable here"
    # Starting no lower but ending level is one of its two statements; and nothing is no harm.
    assert (found["C11"], found["C14"]) == ("partly", "replicated")


def test_reversed_effects_are_not_replicated(tmp_path, rules):
    decisions = decide(write_world(tmp_path / "cpu", World(heat=-0.1)), rules)
    found = verdicts(decisions)
    for claim in ("C1", "C2", "C6", "C10", "C12", "C14", "C16", "C17"):
        assert found[claim] == "not replicated", claim
    gain = next(d for d in decisions if d.claim == "C1").judged[0]
    assert gain.high < 0 and gain.estimate < 0


def test_noise_leaves_the_question_open(tmp_path, rules):
    found = verdicts(decide(write_world(tmp_path / "cpu", World(heat=0.02, noise=2.0)), rules))
    assert {found[claim] for claim in ("C1", "C2", "C7", "C9", "C14", "C17")} <= {"partly", "not testable here"}


def test_missing_records_are_not_run_and_leave_the_others_alone(paper, tmp_path, rules, decided):
    root = shutil.copytree(paper, tmp_path / "cpu")
    for gone in ("figure_9", "equation_15", "sft_pma-seed0", "spike_pma-seed0"):
        shutil.rmtree(root / gone)
    found = decide(root, rules)
    missing = {d.claim: d.why for d in found if d.verdict == "not run"}
    assert set(missing) == {"C2", "C3", "C12", "C13", "C16"}
    assert missing["C2"] == "figure_9: no records of dense_411m"
    kept = {claim: verdict for claim, verdict in verdicts(found).items() if claim not in missing}
    assert kept == {claim: verdict for claim, verdict in verdicts(decided).items() if claim not in missing}
    empty = decide(tmp_path / "nothing", rules)
    assert set(verdicts(empty).values()) == {"not run"}
    assert "17 not run" in screen(empty, "cpu")
    assert list(result_table(empty, "cpu")["claim"]) == [d.claim for d in empty]


def test_accuracy_can_take_a_verdict_back(tmp_path, rules):
    root = write_world(tmp_path / "cpu", World(accuracy_sign=-1, items=200))
    assert Study(root, rules["common"]).accuracy_moves
    c1 = decide(root, rules)[0]
    assert c1.verdict == "partly" and "Accuracy contradicts" in c1.sentence
    (root / "figure_4" / "records.csv").unlink()  # nothing says that it moves
    assert decide(root, rules)[0].verdict == "replicated"


@pytest.mark.parametrize(
    ("world", "verdict", "says"),
    [
        (World(control_recovers=True), "replicated", "so averaging is not what saves the run"),
        (World(control_recovers=False), "replicated", "0 of 2 hold"),
        (World(recovers=False), "not replicated", "Against it"),
    ],
)
def test_the_collapse_is_judged_beside_its_control(tmp_path, rules, world, verdict, says):
    for run in ("spike", "spike_pma", "spike_last"):
        _write_run(tmp_path, run, world)
    c13 = next(d for d in decide(tmp_path, rules) if d.claim == "C13")
    assert c13.verdict == verdict and says in c13.sentence


def test_a_run_that_did_not_collapse_decides_nothing(tmp_path, rules):
    for run in ("spike", "spike_pma", "spike_last"):
        _write_run(tmp_path, run, World(collapses=False))
    c13 = next(d for d in decide(tmp_path, rules) if d.claim == "C13")
    assert c13.verdict == "not testable here" and "did not collapse" in c13.why


def test_the_same_numbers_each_time_and_in_any_company(paper, rules, decided, tmp_path):
    again = result_table(decide(paper, rules), "cpu")
    pd.testing.assert_frame_equal(again, result_table(decided, "cpu"))
    alone = shutil.copytree(paper, tmp_path / "cpu")
    for folder in alone.glob("figure_[3-9]"):
        shutil.rmtree(folder)
    first, second = decided[0], decide(alone, rules)[0]
    assert [(j.estimate, j.low, j.high, j.p) for j in first.judged] == [
        (j.estimate, j.low, j.high, j.p) for j in second.judged
    ]


# ---- the README and the published records


@pytest.fixture
def published(paper, tmp_path, monkeypatch, rules) -> tuple[Path, Path]:
    """A runs folder with published records, and a README written from them."""
    runs, readme = tmp_path / "runs", tmp_path / "README.md"
    shutil.copytree(paper, runs / "cpu" / "published")
    readme.write_text(f"# Title\n{BEGIN}\n{END}\nthe rest\n")
    monkeypatch.setattr(claims_module, "load_claims", lambda: rules)
    call(monkeypatch, "--readme", f"--runs-dir={runs}", f"--readme-path={readme}")
    return runs, readme


def call(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["claims.py", *arguments])
    claims_module.main()


def test_verify_passes_what_was_written_and_names_every_drift(published, monkeypatch, rules):
    import verify

    monkeypatch.setattr(verify, "load_claims", lambda: rules)
    runs, readme = published
    text = readme.read_text()
    assert text.startswith("# Title\n") and text.endswith("the rest\n") and text.count("**replicated**") == 17
    assert verify.verify(runs, readme) == []

    row = next(line for line in text.splitlines() if line.startswith("| C1 "))
    readme.write_text(text.replace(row, row.replace("+0.", "+9.", 1)))
    drift = verify.verify(runs, readme)
    assert len(drift) == 2 and "+9." in drift[0]

    readme.write_text(text)
    table = pd.read_csv(runs / "cpu" / "published" / "claims.csv")
    table.loc[3, "estimate"] += 1e-4
    table.to_csv(runs / "cpu" / "published" / "claims.csv", index=False)
    (drift,) = verify.verify(runs, readme)
    assert "C1" in drift and "estimate" in drift

    monkeypatch.setattr(sys, "argv", ["verify.py", f"--runs-dir={runs}", f"--readme-path={readme}"])
    with pytest.raises(SystemExit) as stop:
        verify.main()
    assert stop.value.code == 1


def test_a_readme_without_its_markers_and_unpublished_records_are_errors(published, tmp_path, monkeypatch):
    runs, readme = published
    readme.write_text("no markers\n")
    with pytest.raises(SystemExit, match="claims:begin"):
        call(monkeypatch, "--readme", f"--runs-dir={runs}", f"--readme-path={readme}")
    with pytest.raises(SystemExit, match="no records published"):
        call(monkeypatch, "--readme", f"--runs-dir={tmp_path}", f"--readme-path={readme}")


def test_fresh_verdicts_are_compared_with_the_published_ones(published, paper, monkeypatch, tmp_path, capsys):
    runs, _ = published
    for folder in paper.iterdir():
        shutil.copytree(folder, runs / "cpu" / folder.name)
    arguments = ["--compare", f"--runs-dir={runs}", f"--out-dir={tmp_path / 'out'}"]
    call(monkeypatch, *arguments)
    assert "same verdicts as published" in capsys.readouterr().out
    shutil.rmtree(runs / "cpu" / "figure_9")
    call(monkeypatch, *arguments)
    assert "C2: not run here, replicated published" in capsys.readouterr().out
    assert compare([], tmp_path / "none.csv").startswith("no published verdicts")
    markdown = (tmp_path / "out" / "cpu" / "claims.md").read_text()
    assert "## Every test" in markdown and "nan" not in markdown


def test_several_scales_stand_side_by_side(decided):
    block = readme_block({"cpu": decided, "gpu": decided})
    assert "verdict, cpu | ours, gpu" in block
    assert len({line.count(" | ") for line in block.splitlines() if line.startswith("| C")}) == 1
    assert "4 of 4 tests hold" in ours(decided[0])


# ---- resampling


def test_holm_is_the_published_procedure():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_the_bootstrap_is_scipys():
    values = _rng("values").normal(0.3, 1, 120)
    mean = weights(120, 9999, 1, "items") @ values
    theirs = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=9999, rng=1)
    assert mean[0] == pytest.approx(values.mean())
    assert interval(mean, 0.05) == pytest.approx(theirs.confidence_interval, abs=0.01)
    assert p_value(mean) == pytest.approx(2 * (theirs.bootstrap_distribution <= 0).mean(), abs=8e-3)
    assert p_value(np.zeros(100)) == 1.0


def test_blocks_keep_neighbours_together_and_few_of_them_are_not_trusted():
    steps, seen = 125, []
    over_blocks(lambda index: seen.append(index) or index.mean(axis=1), steps, 50, 1, "steps")
    (index,) = seen
    assert index.shape == (51, steps) and (index[0] == np.arange(steps)).all()
    assert (np.diff(index[1:]) == 1).mean() > 0.79  # four of five within blocks of 5
    rejected = 0
    for number in range(200):
        curve = _rng("curve", number).normal(size=8)
        rejected += p_value(over_blocks(lambda i, c=curve: c[i].mean(axis=1), 8, 999, number, "null")) < 0.05
    assert rejected <= 20


def test_a_trend_is_the_change_over_the_range():
    x = np.array([0.0, 1.0, 3.0])
    assert trend(x, [np.array([2 * v, 5.0]) for v in x]) == pytest.approx([6.0, 0.0])
