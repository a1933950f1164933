"""Training on from a merge: torch and transformers load it as their own, with the averages in their places."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

import pma
from pma.merge.formats import Piece, TensorInfo
from pma.merge.patch import Patch

WEIGHTS = [0.25, 0.75]
FIXTURES = Path(__file__).parent / "fixtures"


def mean(values: list[torch.Tensor]) -> torch.Tensor:
    return sum(weight * value.double() for weight, value in zip(WEIGHTS, values, strict=True))


# ---- torch distributed checkpoints ----


def model_and_optimizer() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3)).bfloat16()
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(4, 5, dtype=torch.bfloat16)).square().sum().backward()
    optimizer.step()


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments, "train_state": {"step": torch.tensor(7), "seen": [1, 2]}}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with two distributed checkpoints, which hold fp32 copies of the weights and an EMA too."""
    folder = tmp_path_factory.mktemp("run")
    model, optimizer = model_and_optimizer()
    for step in (10, 20):
        train_step(model, optimizer)
        state = state_of(model, optimizer)
        state["optimizer"]["state"] = {
            name: {**kept, "fp32_param": state["model"][name].float() + step / 1000}
            for name, kept in state["optimizer"]["state"].items()
        }
        checkpoint.save(state, checkpoint_id=folder / f"step-{step}", no_dist=True)
        state["ema"] = {name: value.float() * 2 for name, value in state["model"].items()}
        checkpoint.save(state, checkpoint_id=folder / "with-ema" / f"step-{step}", no_dist=True)
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a distributed checkpoint, read by torch."""
    meta = checkpoint.FileSystemReader(folder).read_metadata().state_dict_metadata
    state = {
        name: torch.empty(kept.size, dtype=kept.properties.dtype)
        for name, kept in meta.items()
        if hasattr(kept, "size")
    }
    checkpoint.load(state, checkpoint_id=folder, no_dist=True)
    return state


def merge(run: Path, output: Path, **options: object) -> Path:
    return pma.merge([run / "step-10", run / "step-20"], output, weights=WEIGHTS, resumable=True, **options)


@pytest.mark.parametrize("optimizer", ["last", "reset", "average"])
def test_a_distributed_checkpoint_is_the_newest_with_the_averages_in_it(tmp_path, run, optimizer):
    out = merge(run, tmp_path / "step-20", optimizer=optimizer)
    before, newest, made = tensors(run / "step-10"), tensors(run / "step-20"), tensors(out)
    assert made.keys() == newest.keys()
    for name, value in made.items():
        averaged = name.startswith("model.") or name.endswith("fp32_param")
        if averaged or (optimizer == "average" and "exp_avg" in name):
            assert torch.equal(value, mean([before[name], newest[name]]).to(value.dtype)), name
        elif optimizer == "reset" and name.startswith("optimizer.state."):
            assert not value.any(), name
        else:
            assert torch.equal(value, newest[name]), name
    manifest = json.loads((out / "manifest.json").read_text())
    expected = {"layout": "dcp", "from": str(run / "step-20"), "optimizer": optimizer, "copies_of_weights_averaged": 4}
    assert manifest["resumable"] == expected and manifest["format"] == "dcp"
    assert (out / ".metadata").read_bytes() == (run / "step-20" / ".metadata").read_bytes()
    assert pma.merge([out], tmp_path / "again", dtype="newest")  # its content is what its manifest says


def test_processes_of_torchrun_make_the_same_checkpoint_and_say_how_to_go_on(tmp_path, run):
    called = merge(run, tmp_path / "called", optimizer="average")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    sources = f"sources=[{run / 'step-10'},{run / 'step-20'}]"
    options = ["weights=[0.25,0.75]", "resumable=true", "optimizer=average", f"output={tmp_path / 'shared'}"]
    command = [*torchrun, "-m", "pma.merge", sources, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "into 1 checkpoint: " in done.stdout
    assert "optimizer=average; train on with torchtitan: checkpoint.initial_load_path=" in done.stdout
    for path in set(called.iterdir()) - {called / "manifest.json"}:
        assert (tmp_path / "shared" / path.name).read_bytes() == path.read_bytes(), path.name


def test_torch_trains_on_from_a_distributed_checkpoint(tmp_path, run):
    out = merge(run, tmp_path / "step-20")
    model, optimizer = model_and_optimizer()
    train_step(model, optimizer)  # the optimizer has something to load into
    state = state_of(model, optimizer)
    checkpoint.load(state, checkpoint_id=out, no_dist=True)
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    assert state["train_state"]["seen"] == [1, 2]
    assert {float(kept["step"]) for kept in optimizer.state.values()} == {2}
    before = model[0].weight.clone()
    assert torch.equal(before, tensors(out)["model.0.weight"])
    train_step(model, optimizer)
    assert not torch.equal(before, model[0].weight)


def test_the_ema_beside_the_weights_is_averaged_with_them(tmp_path, run):
    with pytest.raises(ValueError, match="state=model or state=ema"):
        merge(run / "with-ema", tmp_path / "out")
    made = tensors(merge(run / "with-ema", tmp_path / "out", state="model"))
    each = [tensors(run / "with-ema" / f"step-{step}") for step in (10, 20)]
    for name in ("model.0.weight", "ema.0.weight"):
        assert torch.equal(made[name], mean([one[name] for one in each]).to(made[name].dtype))


def test_pieces_of_any_sharding_are_put_in_place(tmp_path):
    generator = np.random.default_rng(0)
    whole = generator.integers(0, 2**15, (4, 6, 5)).astype("<i2")
    boxes = [((0, 0, 0), (4, 2, 5)), ((0, 2, 0), (3, 4, 2)), ((0, 2, 2), (3, 4, 3)), ((3, 2, 0), (1, 4, 5))]
    (tmp_path / "copy").mkdir()
    pieces, at = [], 3
    for offsets, sizes in boxes:
        pieces.append(Piece(offsets, sizes, tmp_path / "file", at))
        at += int(np.prod(sizes)) * 2
    (tmp_path / "copy" / "file").write_bytes(bytes(at))
    patch = Patch({"x": (TensorInfo("I16", whole.shape), pieces)}, tmp_path, tmp_path / "copy")
    flat, start = whole.reshape(-1), 0
    while start < flat.size:  # blocks of any length
        count = int(generator.integers(1, 40))
        patch.write("x", start, flat[start : start + count])
        start += count
    patch.close()
    data = (tmp_path / "copy" / "file").read_bytes()
    for piece in pieces:
        part = np.frombuffer(data, "<i2", int(np.prod(piece.sizes)), piece.at).reshape(piece.sizes)
        box = tuple(slice(o, o + s) for o, s in zip(piece.offsets, piece.sizes, strict=True))
        assert np.array_equal(part, whole[box])


@pytest.fixture
def megatron(tmp_path) -> list[Path]:
    """Two checkpoints as Megatron-Core 0.16.1 writes them, of the same numbers."""
    with tarfile.open(FIXTURES / "megatron.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    folders = [tmp_path / "run" / f"iter_{step:07d}" for step in (10, 20)]
    folders[0].parent.mkdir()
    (tmp_path / "checkpoint").rename(folders[1])
    shutil.copytree(folders[1], folders[0])
    return folders


def test_megatron_finds_the_checkpoint_by_its_marker(tmp_path, megatron):
    out = pma.merge(megatron, tmp_path / "on" / "iter_0000020", weights=[1, 1], resumable=True)
    assert (out.parent / "latest_checkpointed_iteration.txt").read_text() == "20"
    assert (out / "common.pt").read_bytes() == (megatron[1] / "common.pt").read_bytes()
    each = [pma.merge.average([folder], [1.0]) for folder in (out, megatron[1])]
    assert all(torch.equal(value, 2 * each[1][name]) for name, value in each[0].items())
    shutil.rmtree(out)
    with pytest.raises(ValueError, match="latest_checkpointed_iteration.txt: there already"):
        pma.merge(megatron, out, resumable=True)
    with pytest.raises(ValueError, match="a folder that ends with iter_0000020"):
        pma.merge(megatron, tmp_path / "on2", resumable=True)


# ---- the Trainer of transformers ----


def trainer(folder: Path, steps: int):
    from transformers import Qwen3Config, Qwen3ForCausalLM, Trainer, TrainingArguments

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 8}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=16, num_key_value_heads=1, tie_word_embeddings=True, **sizes))
    items = [{"input_ids": torch.arange(i, i + 8) % 16, "labels": torch.arange(i, i + 8) % 16} for i in range(16)]
    arguments = TrainingArguments(
        str(folder), max_steps=steps, save_steps=3, warmup_steps=8, report_to=[], use_cpu=True, disable_tqdm=True
    )
    return Trainer(model, arguments, train_dataset=items)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> list[Path]:
    """Two checkpoints of a run of the Trainer."""
    folder = tmp_path_factory.mktemp("trainer")
    trainer(folder, 6).train()
    return [folder / "checkpoint-3", folder / "checkpoint-6"]


@pytest.mark.parametrize("optimizer", ["last", "reset", "average"])
def test_the_trainer_goes_on_from_a_merge(tmp_path, trained, optimizer):
    out = pma.merge(trained, tmp_path / "checkpoint-6", weights=WEIGHTS, resumable=True, optimizer=optimizer)
    assert {path.name for path in out.iterdir()} - {path.name for path in trained[1].iterdir()} == {
        "manifest.json",
        "diagnostics.json",
    }
    for name, value in load_file(out / "model.safetensors").items():
        expected = mean([load_file(folder / "model.safetensors")[name] for folder in trained])
        assert torch.allclose(value.double(), expected, rtol=1e-6, atol=1e-8)
    assert zipfile.ZipFile(out / "optimizer.pt").testzip() is None
    each = [torch.load(folder / "optimizer.pt", weights_only=True)["state"][0] for folder in (*trained, out)]
    if optimizer == "reset":
        assert not any(value.any() for value in each[2].values())
    else:
        expected = mean([one["exp_avg_sq"] for one in each[:2]]) if optimizer == "average" else each[1]["exp_avg_sq"]
        assert torch.allclose(each[2]["exp_avg_sq"].double(), expected.double(), rtol=1e-6, atol=0)
        assert each[2]["step"] == 6
    again = trainer(tmp_path, 7)
    again.train(resume_from_checkpoint=True)  # finds checkpoint-6 below its folder
    assert again.state.global_step == 7
    assert again.lr_scheduler.last_epoch == 7  # the schedule went on too
    assert float(again.optimizer.state[next(again.model.parameters())]["step"]) == (1 if optimizer == "reset" else 7)


def test_what_cannot_be_trained_on_is_refused_in_one_line(tmp_path, run, model_folder, nothing_left):
    plain = [model_folder(tmp_path / str(i), {"w": torch.ones(3)}) for i in range(2)]
    sources = [run / "step-10", run / "step-20"]
    refused = [
        (plain, {}, "without the state of a trainer"),
        (sources, {"dtype": "float32"}, "dtype=float32: leave it out"),
        (sources, {"prefix": "model."}, "prefix=model.: leave it out"),
        (sources, {"format": "dcp"}, "format=dcp: leave it out"),
        ([run / "with-ema" / "step-20"], {"state": "ema"}, "say state=model"),
        (sources, {"optimizer": "first"}, "choose last, reset or average"),
        (sources, {"weights": [1.0, 0.0]}, "has weight 0"),
        (sources, {"weights": [-1.0, 2.0], "optimizer": "average"}, "weight below 0"),
    ]
    for folders, options, message in refused:
        with pytest.raises(ValueError, match=message):
            pma.merge(folders, tmp_path / "out", resumable=True, **options)
    with pytest.raises(ValueError, match="goes with resumable=true"):
        pma.merge(sources, tmp_path / "out", optimizer="reset")
    assert nothing_left(tmp_path)


def test_weights_that_the_trainer_would_read_instead_are_refused(tmp_path, trained):
    copies = [shutil.copytree(folder, tmp_path / folder.name) for folder in trained]
    (copies[1] / "pytorch_model_fsdp.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"pytorch_model_fsdp.bin: weights beside those that are merged"):
        pma.merge(copies, tmp_path / "out", resumable=True)
    (copies[1] / "pytorch_model_fsdp.bin").unlink()
    (copies[1] / "optimizer.pt").unlink()
    with pytest.raises(ValueError, match="holds no state of an optimizer; take optimizer=reset"):
        pma.merge(copies, tmp_path / "out", resumable=True)
    pma.merge(copies, tmp_path / "out", resumable=True, optimizer="reset")


def test_a_file_with_all_its_entries_is_trained_on(tmp_path):
    sources = []
    for step in (10, 20):
        model, optimizer = model_and_optimizer()
        for _ in range(step // 10):
            train_step(model, optimizer)
        kept = {"state_dict": model.state_dict(), "optimizer_states": [optimizer.state_dict()], "global_step": step}
        sources.append(tmp_path / f"epoch=0-step={step}.ckpt")
        torch.save(kept, sources[-1])
    out = pma.merge(sources, tmp_path / "out", weights=WEIGHTS, resumable=True, optimizer="average")
    each = [torch.load(path, weights_only=True) for path in (*sources, out / sources[1].name)]
    assert each[2]["global_step"] == 20
    for name, value in each[2]["state_dict"].items():
        assert torch.equal(value, mean([one["state_dict"][name] for one in each[:2]]).bfloat16())
    moments = [one["optimizer_states"][0]["state"][0]["exp_avg"] for one in each]
    assert torch.equal(moments[2], mean(moments[:2]).bfloat16())
