"""Holding checkpoints of every layout, and merging what is held; a running EMA beside prefix, state and key."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed import checkpoint as dcp

from pma.merge import average
from pma.merge.options import Part
from pma.watch.follow import Watch
from pma.watch.hold import held, hold, release
from pma.watch.kept import merged

SMA_3 = {"method": "sma", "n": 3}
RUNNING_EMA = {"method": "ema", "alpha": 0.5}


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {f"layer.{i}.weight": torch.full((2, 3), value) for i in range(3)}


def single_file(run, at: int, value: float) -> None:
    """A checkpoint of Lightning, with config.json beside it."""
    run.mkdir(exist_ok=True)
    (run / "config.json").write_text("{}")
    state = {f"net.{name}": tensor for name, tensor in tensors(value).items()}
    torch.save({"state_dict": state, "global_step": at}, run / f"epoch=0-step={at}.ckpt")


def nested(run, at: int, value: float) -> None:
    """A distributed checkpoint in a sub-folder, as OLMo-core writes it."""
    (run / f"step{at}").mkdir(parents=True)
    state = {f"net.{name}": tensor for name, tensor in tensors(value).items()}
    dcp.save(state, checkpoint_id=run / f"step{at}" / "model_and_optim", no_dist=True)


def with_ema(run, at: int, value: float) -> None:
    """A distributed checkpoint that holds an average of the weights beside them."""
    state = {f"net.{name}": tensor for name, tensor in tensors(value).items()}
    state |= {f"ema_optimizer.{name}": -tensor for name, tensor in state.items()}
    dcp.save(state, checkpoint_id=run / f"step-{at}", no_dist=True)


@pytest.mark.parametrize(
    "write,part",
    [
        (single_file, {"prefix": "net."}),
        (nested, {"prefix": "net."}),
        (with_ema, {"state": "model", "prefix": "net."}),
    ],
)
def test_every_layout_is_held_and_merged_after_its_deletion(tmp_path, write, part, make_job, look, monkeypatch):
    monkeypatch.setattr("pma.merge.checkpoints._QUIET", -1.0)
    run = tmp_path / "run"
    watch = None
    for at in (1, 2, 3):
        write(run, at, float(at))
        watch = watch or Watch(make_job(run, tmp_path / "out", [SMA_3, RUNNING_EMA], hold=True, keep=3, **part))
        look(watch)
        for path in run.glob(f"*step*{at}*"):  # the trainer keeps none
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert sorted(held(tmp_path / "out" / "held")) == [1, 2, 3]
    sma = load_file(tmp_path / "out" / "merged" / "sma_3" / f"{3:012d}" / "model.safetensors")
    ema = load_file(tmp_path / "out" / "merged" / "ema_0.5" / f"{3:012d}" / "model.safetensors")
    assert sma.keys() == ema.keys() == tensors(0.0).keys()  # the prefix is off, also of what the EMA goes on from
    assert sma["layer.0.weight"].unique().item() == 2.0
    assert ema["layer.0.weight"].unique().item() == 0.5 * 3 + 0.25 * 2 + 0.25 * 1
    assert len(merged(tmp_path / "out" / "merged" / "ema_0.5")) == 3


def test_a_held_file_keeps_its_name_and_what_lies_beside_it(tmp_path):
    single_file(tmp_path / "run", 5, 1.0)
    path = hold(tmp_path / "run" / "epoch=0-step=5.ckpt", 5, tmp_path / "held", Part())
    assert path == tmp_path / "held" / "5" / "epoch=0-step=5.ckpt" and path.stat().st_nlink == 2
    assert (path.parent / "config.json").is_file()
    assert hold(path, 5, tmp_path / "held", Part()) == path
    release(tmp_path / "held", (), before=6)
    assert not held(tmp_path / "held")


def test_what_a_merge_would_refuse_is_not_held(tmp_path):
    with_ema(tmp_path / "run", 5, 1.0)
    with pytest.raises(ValueError, match="state=model or state=ema"):
        hold(tmp_path / "run" / "step-5", 5, tmp_path / "held", Part())
    assert not held(tmp_path / "held")


def test_shards_are_held_with_their_index(tmp_path):
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    for i in (1, 2):
        save_file({f"w{i}": torch.ones(2)}, folder / f"model-0000{i}-of-00002.safetensors")
    index = '{"weight_map": {"w1": "model-00001-of-00002.safetensors", "w2": "model-00002-of-00002.safetensors"}}'
    (folder / "model.safetensors.index.json").write_text(index)
    path = hold(folder, 5, tmp_path / "held", Part())
    assert average([path], [1.0]).keys() == {"w1", "w2"}
