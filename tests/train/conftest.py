"""What the tests of training share: a small job on text that needs no download, one trained trunk, and readers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from safetensors import safe_open

from pma.config import CONF_DIR, register
from pma.layout import snapshots
from pma.train.loop import train

SHARED = ["data=generated", "tracking=off", "threads=1", "train.fork_points=[]"]
SMALL = [  # 60 steps, a snapshot every 10, a checkpoint every 20
    "scale=smoke",
    *SHARED,
    "train.total_tokens=15360",
    "train.snapshot_interval=2560",
    "train.checkpoint_interval=5120",
    "train.log_interval=10",
    "schedule.warmup_tokens=1280",
]


def compose_config(overrides: list[str]) -> DictConfig:
    """Compose a training job."""
    register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose("config", overrides)


@dataclass
class Lab:
    """A folder of runs, and the corpus that they train on."""

    runs_dir: Path
    data_dir: Path

    def overrides(self, *more: str) -> list[str]:
        """Overrides of a small job here, for a command line."""
        return [*SMALL, f"runs_dir={self.runs_dir}", f"data_dir={self.data_dir}", *more]

    def config(self, *more: str) -> DictConfig:
        """A small job here."""
        return compose_config(self.overrides(*more))

    def train(self, *more: str) -> Path:
        """Train a small job here; the run's folder."""
        return train(self.config(*more))

    def folder(self, run_id: str) -> Path:
        """Folder of a run."""
        return self.runs_dir / "smoke" / run_id


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    """Where the corpus of the tests is built, once."""
    return tmp_path_factory.getbasetemp() / "data"


@pytest.fixture
def lab(tmp_path, data_dir) -> Lab:
    """An empty folder of runs for one test."""
    return Lab(tmp_path / "runs", data_dir)


@pytest.fixture(scope="session")
def shared_lab(tmp_path_factory, data_dir) -> Lab:
    """A folder of runs for all tests: each gives its runs names of their own."""
    return Lab(tmp_path_factory.mktemp("shared") / "runs", data_dir)


@pytest.fixture(scope="session")
def trunk(shared_lab) -> Path:
    """A run trained without a break, with checkpoints to fork off: seed 0 of the parent `trunk`."""
    return shared_lab.train("run_id=trunk-seed0", "train.fork_points=[2560,5120]")


@pytest.fixture(scope="session")
def small_scale_gpu(data_dir):
    """Jobs of scale gpu divided down: (model, runs_dir, overrides) -> config of ten steps.

    Widths and vocabulary are divided by 8, depth by 4, sequences by 16.
    """

    def config(model: str, runs_dir: Path, *more: str) -> DictConfig:
        full = compose_config(["scale=gpu", f"model=gpu/{model}"]).model
        shape = {"vocab_size": full.vocab_size // 8, "hidden_size": full.hidden_size // 8, "head_dim": 8}
        shape |= {"layers": max(2, full.layers // 4)}
        for key in ("intermediate_size", "expert_intermediate_size"):
            if full[key]:
                shape[key] = full[key] // 8
        return compose_config(
            [
                "scale=gpu",
                f"model=gpu/{model}",
                *SHARED,
                *(f"model.{key}={value}" for key, value in shape.items()),
                "scale.sequence_length=64",
                "scale.batch_tokens=256",
                "train.total_tokens=2560",
                "train.snapshot_interval=1280",
                "train.checkpoint_interval=1280",
                "schedule.warmup_tokens=1280",
                f"runs_dir={runs_dir}",
                f"data_dir={data_dir}",
                *more,
            ]
        )

    return config


@pytest.fixture(scope="session")
def metrics():
    """Read a run's metrics.jsonl, without the speed, which differs from call to call."""

    def read(run_dir: Path) -> list[dict[str, float]]:
        rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in row.items() if key != "tokens_per_second"} for row in rows]

    return read


@pytest.fixture(scope="session")
def last_weights():
    """Read the newest snapshot of a run, in however many files."""

    def read(run_dir: Path) -> dict[str, torch.Tensor]:
        kept = snapshots(run_dir)
        tensors = {}
        for path in kept[max(kept)].glob("*.safetensors"):
            with safe_open(path, framework="pt") as file:
                tensors |= {name: file.get_tensor(name) for name in file.keys()}
        return tensors

    return read


@pytest.fixture(scope="session")
def assert_same_bits():
    """Compare tensors by name, bit by bit."""

    def check(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
        assert actual.keys() == expected.keys()
        assert all(torch.equal(actual[name], expected[name]) for name in expected)

    return check
