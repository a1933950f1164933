"""The gpu scale on a CPU, at shapes divided down; what needs a GPU is skipped without one."""

from __future__ import annotations

import pytest
import torch

from pma.config import CONF_DIR
from pma.layout import snapshots
from pma.snapshot import copy_to_cpu
from pma.train.loop import train

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
MODELS = sorted(path.stem for path in (CONF_DIR / "model" / "gpu").glob("*.yaml"))


@pytest.fixture
def losses(tmp_path, small_scale_gpu, metrics):
    """Train ten steps of a model and return the logged losses."""

    def run(model: str, *overrides: str) -> list[float]:
        return [row["loss"] for row in metrics(train(small_scale_gpu(model, tmp_path, *overrides)))]

    return run


@pytest.mark.parametrize("model", MODELS)
def test_every_model_of_the_gpu_scale_trains_ten_steps(tmp_path, small_scale_gpu, metrics, model):
    folder = train(small_scale_gpu(model, tmp_path, "device=cpu"))
    assert list(snapshots(folder)) == [1280, 2560]
    first, last = (row["loss"] for row in metrics(folder))
    assert last < first


def test_a_copy_holds_what_stood_when_it_was_requested():
    weights = {"a": torch.arange(4.0), "b": torch.ones(2, requires_grad=True)}
    copies = copy_to_cpu(weights)
    with torch.no_grad():
        for tensor in weights.values():
            tensor.mul_(0)
    assert torch.equal(copies()["a"], torch.arange(4.0)) and torch.equal(copies()["b"], torch.ones(2))


@on_a_gpu
@pytest.mark.parametrize("model", ["dense_411m", "moe_1.3b_13b"])
def test_on_a_gpu_the_same_seed_gives_the_same_losses_and_a_stopped_run_goes_on(losses, model):
    # bf16 sums by atomics in the embedding's gradient: the same to 1e-2, not to the bit
    whole, again = (losses(model, "device=cuda", f"run_id={name}") for name in ("whole", "again"))
    assert whole == pytest.approx(again, rel=1e-2)
    losses(model, "device=cuda", "run_id=stopped", "stop=1280")
    assert losses(model, "device=cuda", "run_id=stopped") == pytest.approx(whole, rel=1e-2)


@on_a_gpu
def test_on_a_gpu_the_losses_are_those_of_the_cpu(losses):
    on_cpu, on_gpu = (losses("moe_1.3b_13b", f"device={d}", f"run_id={d}") for d in ("cpu", "cuda"))
    assert on_gpu == pytest.approx(on_cpu, rel=2e-2)
