"""The gpu scale on a CPU, at shapes divided down; what needs a GPU is skipped without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from test_train import GENERATED

from pma.config import CONF_DIR, register
from pma.layout import snapshots
from pma.snapshot import copy_to_cpu
from pma.train.loop import train

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
MODELS = sorted(path.stem for path in (CONF_DIR / "model" / "gpu").glob("*.yaml"))


def small(tmp_path: Path, model: str, *overrides: str) -> DictConfig:
    """Ten steps of a model of scale gpu: widths and vocabulary divided by 8, depth by 4, sequences by 16."""
    register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        full = compose("config", ["scale=gpu", f"model=gpu/{model}"]).model
        shape = {"vocab_size": full.vocab_size // 8, "hidden_size": full.hidden_size // 8, "head_dim": 8}
        shape |= {"layers": max(2, full.layers // 4)}
        for key in ("intermediate_size", "expert_intermediate_size"):
            if full[key]:
                shape[key] = full[key] // 8
        return compose(
            "config",
            [
                "scale=gpu",
                f"model=gpu/{model}",
                "data=smoke",
                *GENERATED,
                *(f"model.{key}={value}" for key, value in shape.items()),
                "scale.sequence_length=64",
                "scale.batch_tokens=256",
                "train.total_tokens=2560",
                "train.snapshot_interval=1280",
                "train.checkpoint_interval=1280",
                "schedule.warmup_tokens=1280",
                f"runs_dir={tmp_path / 'runs'}",
                f"data_dir={tmp_path.parent / 'data'}",
                *overrides,
            ],
        )


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("model", MODELS)
def test_every_model_of_the_gpu_scale_trains_ten_steps(tmp_path, model):
    folder = train(small(tmp_path, model, "device=cpu"))
    assert list(snapshots(folder)) == [1280, 2560]
    first, last = losses(folder)
    assert last < first


def test_a_copy_holds_what_stood_when_it_was_asked_for():
    weights = {"a": torch.arange(4.0), "b": torch.ones(2, requires_grad=True)}
    copies = copy_to_cpu(weights)
    with torch.no_grad():
        for tensor in weights.values():
            tensor.mul_(0)
    assert torch.equal(copies()["a"], torch.arange(4.0)) and torch.equal(copies()["b"], torch.ones(2))


@on_a_gpu
@pytest.mark.parametrize("model", ["dense_411m", "moe_1.3b_13b"])
def test_on_a_gpu_the_same_seed_gives_the_same_losses_and_a_stopped_run_goes_on(tmp_path, model):
    # bf16 sums by atomics in the embedding's gradient: the same to 1e-2, not to the bit
    one, two = (losses(train(small(tmp_path, model, "device=cuda", f"run_id={name}"))) for name in ("one", "two"))
    assert one == pytest.approx(two, rel=1e-2)
    train(small(tmp_path, model, "device=cuda", "run_id=stopped", "stop=1280"))
    went_on = losses(train(small(tmp_path, model, "device=cuda", "run_id=stopped")))
    assert went_on == pytest.approx(one, rel=1e-2)


@on_a_gpu
def test_on_a_gpu_the_losses_are_those_of_the_cpu(tmp_path):
    on_cpu, on_gpu = (
        losses(train(small(tmp_path, "moe_1.3b_13b", f"device={d}", f"run_id={d}"))) for d in ("cpu", "cuda")
    )
    assert on_gpu == pytest.approx(on_cpu, rel=2e-2)
