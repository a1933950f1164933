"""Common ground of the tests of analysis/: its modules on the path, the published records, a study of one's own."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "analysis"))  # as for a script that lies there
PUBLISHED = ROOT / "runs" / "cpu" / "published"
DOMAINS = ("heldout_code", "heldout_prose")


@pytest.fixture(scope="session")
def published_cpu() -> Path:
    """The published records of scale cpu, to be read only."""
    return PUBLISHED


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """Records of every experiment in a made-up world where the paper is right, seed 0 exploratory; to be read only."""
    from synthetic_world import World, write_world

    return write_world(tmp_path_factory.mktemp("world") / "runs" / "cpu", World(), seeds=(0, 2, 3, 4))


@pytest.fixture(scope="session")
def nine_seeds(tmp_path_factory) -> Path:
    """The same of seed 0 and all confirmatory seeds; to be read only."""
    from synthetic_world import World, write_world

    return write_world(tmp_path_factory.mktemp("nine") / "cpu", World())


@pytest.fixture(scope="session")
def rules():
    """claims.yaml."""
    from verdicts.rules import load_rules

    return load_rules()


@pytest.fixture(scope="session")
def decided(nine_seeds, rules):
    """The claims of `nine_seeds`."""
    from verdicts.decide import decide

    return decide(nine_seeds, rules)


@pytest.fixture(scope="session")
def decided_families(decided, rules):
    """The claims of `nine_seeds`, which has no records on what the paper left open."""
    from verdicts.decide import Family
    from verdicts.rules import BEYOND, load_rules

    return Family(rules, {"cpu": decided}), Family(load_rules(BEYOND), {})


@pytest.fixture(scope="session")
def published(nine_seeds, decided, tmp_path_factory) -> Path:
    """`nine_seeds` published, as publish.py and claims.py --readme leave it; to be read only."""
    from publish import publish

    root = tmp_path_factory.mktemp("published") / "cpu"
    shutil.copytree(nine_seeds, root)
    folder = publish(root.parent, "cpu")
    decided.seeds_table().to_csv(folder / "seeds.csv", index=False)
    return folder


@pytest.fixture
def own(tmp_path):
    """Make a runs folder of your own, with records of some seeds."""
    from synthetic_world import World, write_world

    def make(*seeds: int, world: World | None = None) -> Path:
        write_world(tmp_path / "own" / "cpu", world or World(), seeds)
        return tmp_path / "own"

    return make


@pytest.fixture(scope="session")
def copy_published():
    """Copy published experiments, and the runs that they are about, below another folder."""

    def copy(names: tuple[str, ...], root: Path) -> None:
        for name in names:
            shutil.copytree(PUBLISHED / name, root / name)
            for run in json.loads((PUBLISHED / name / "manifest.json").read_text())["runs"]:
                shutil.copytree(PUBLISHED / run, root / run, dirs_exist_ok=True)

    return copy


@pytest.fixture(scope="session")
def write_study():
    """Write the records of an experiment that no file of analysis/ knows, and those of its run."""

    def write(root: Path, name: str = "my_study") -> None:
        run = "mine-seed0"
        experiment = {"name": name, "title": "Merging in a study of one's own", "claims": []}
        _write_manifest(root / name, {"experiment": experiment, "runs": {run: "0"}, "seconds": 3.0})
        counts = {"parameters": {"total": 1000, "active": 1000}, "tokens": 4096, "device": "cpu", "seconds": 60.0}
        _write_manifest(root / run, counts)
        steps = [{"tokens": 1024 * i, "loss": 3 - 0.1 * i, "lr": 1e-3, "gradient_norm": 1.0} for i in range(1, 5)]
        (root / run / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
        records, items = _scores(name, root.parent.name)
        records.to_csv(root / name / "records.csv", index=False)
        items.to_parquet(root / name / "items.parquet")

    return write


def _write_manifest(folder: Path, manifest: dict) -> None:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _scores(name: str, scale: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two axes and two domains at two points: the last snapshot, and the mean of two snapshots, which is better."""
    from pma.records import COLUMNS

    random = np.random.default_rng(0)
    records, items = [], []
    for tokens in (2048, 4096):
        for method, n in (("last", 1), ("sma", 2)):
            key = {"run": "mine", "seed": 0, "tokens": tokens, "method": method, "n": n, "interval": 1024}
            key["suite"] = "proxy"
            means: dict[tuple[str, str], float] = {}
            for task in ("code", "math", *DOMAINS):
                for metric in ("bits_per_byte",) if task in DOMAINS else ("acc", "bits_per_byte"):
                    values = 2 - tokens / 8192 - 0.1 * (n > 1) + 0.1 * random.normal(size=12)
                    means[task, metric] = float(values.mean())
                    items.append({**key, "task": task, "metric": metric, "values": values})
            for metric in ("acc", "bits_per_byte"):
                means["average", metric] = (means["code", metric] + means["math", metric]) / 2
            means["heldout", "bits_per_byte"] = float(np.mean([means[task, "bits_per_byte"] for task in DOMAINS]))
            rest = {"scale": scale, "experiment": name, "stderr": 0.02, "config_hash": "0"}
            records += [{**key, **rest, "task": t, "metric": m, "value": value} for (t, m), value in means.items()]
    return pd.DataFrame(records, columns=COLUMNS), pd.DataFrame(items)


@pytest.fixture
def small(tmp_path):
    """An empty study to be written row by row."""
    from small_study import Small

    return Small(tmp_path / "cpu")
