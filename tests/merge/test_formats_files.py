"""Single files, files of torch.save with more in them than a model, copies of a model, and what the errors say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed import checkpoint

import pma
from pma.json_files import MANIFEST
from pma.merge.formats import open_source

A = {"layers.0.w": torch.arange(6.0).reshape(2, 3), "layers.1.w": torch.ones(4), "head.w": torch.full((2,), 2.0)}
B = {name: tensor + 2 for name, tensor in A.items()}
MEAN = {name: tensor + 1 for name, tensor in A.items()}


def equal(folder: Path, expected: dict[str, torch.Tensor], file: str = "model.safetensors") -> bool:
    made = load_file(folder / file)
    return made.keys() == expected.keys() and all(torch.equal(made[name], tensor) for name, tensor in expected.items())


def lightning(state: dict[str, torch.Tensor]) -> dict:
    """What Lightning writes: the model beside the optimizer and its own counters."""
    optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
    return {"epoch": 1, "global_step": 10, "state_dict": state, "optimizer_states": [optimizer], "lr_schedulers": []}


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".pth", ".bin", ".ckpt"])
def test_single_files_are_sources_and_their_neighbours_stay_where_they_are(tmp_path, ending):
    (tmp_path / "notes.txt").write_text("not of the model")
    files = [tmp_path / f"step-{i}{ending}" for i in range(2)]
    for file, state in zip(files, (A, B), strict=True):
        if ending == ".safetensors":
            save_file(state, file)
        else:
            torch.save(lightning(state) if ending == ".ckpt" else state, file)
    out = pma.merge(files, tmp_path / "out")
    assert equal(out, MEAN) and not (out / "notes.txt").exists()
    assert json.loads((out / MANIFEST).read_text())["sources"][0]["folder"] == str(files[0])
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')  # beside it, config and tokenizer go with it
    assert (pma.merge(files, tmp_path / "with-config") / "config.json").is_file()


def test_a_folder_with_one_safetensors_file_of_any_name_is_a_source(tmp_path):
    save_file(A, tmp_path / "diffusion_pytorch_model.safetensors")
    assert open_source(tmp_path).tensors.keys() == A.keys()
    save_file(A, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="found diffusion_pytorch_model.safetensors, other.safetensors; give the file"):
        open_source(tmp_path)


def test_the_state_dict_of_a_file_is_found_or_named(tmp_path):
    rng = {"cpu": torch.get_rng_state()}
    file = tmp_path / "a.pt"
    torch.save({"model": A, "rng": rng, "step": 3}, file)
    assert open_source(file).tensors.keys() == A.keys()  # one is left beside generators of random numbers
    torch.save({"student": A, "teacher": B}, file)
    with pytest.raises(ValueError, match="student and teacher are state dicts; say which to merge with key=student"):
        open_source(file)
    assert equal(pma.merge([file], tmp_path / "named", key="teacher"), B)
    with pytest.raises(ValueError, match="key=nobody: no nobody there, only student, teacher"):
        open_source(file, key="nobody")
    torch.save({"a": {"deep": A}, "step": 3}, file)
    with pytest.raises(ValueError, match="not a state dict, nor is one an entry of it; it has a, step"):
        open_source(file)
    assert open_source(file, key="a.deep").tensors.keys() == A.keys()
    torch.save({"model": A, "ema": B}, file)
    with pytest.raises(ValueError, match="model and ema are state dicts"):
        open_source(file)
    assert equal(pma.merge([file], tmp_path / "ema", state="ema"), B)
    assert equal(pma.merge([file], tmp_path / "model", state="model"), A)
    torch.save({**A, "layers.0._extra_state": None}, file)
    assert open_source(file).tensors.keys() == A.keys()
    save_file(A, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="key=model: .* is no file of torch.save"):
        open_source(tmp_path / "a.safetensors", key="model")


class Settings:
    """Code of the user's own, which a checkpoint of Lightning may hold."""


def test_a_class_in_a_file_is_named_and_not_loaded(tmp_path):
    torch.save({**lightning(A), "hyper_parameters": Settings()}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"holds an object of \S*Settings, which weights_only does not load"):
        open_source(tmp_path / "a.ckpt")


# ---- copies of a model ----


def with_ema(folder: Path, prefix: str = "") -> Path:
    """What torchtitan writes when it keeps an average of the weights."""
    state = {f"{prefix}{name}": tensor for name, tensor in A.items()}
    state |= {f"ema_optimizer.{name}": tensor for name, tensor in B.items()}
    state |= {"ema_optimizer.step": torch.tensor(3), "optimizer.state.layers.0.w.exp_avg": torch.ones(2)}
    checkpoint.save(state, checkpoint_id=folder, no_dist=True)
    return folder


@pytest.mark.parametrize("prefix", ["", "model."])
def test_weights_and_their_average_are_not_merged_together(tmp_path, prefix):
    source = with_ema(tmp_path / "step-1", prefix)
    with pytest.raises(ValueError, match="holds the weights and an average of them .* state=model or state=ema"):
        pma.merge([source], tmp_path / "out")
    for state, tensors in (("model", A), ("ema", B)):
        out = pma.merge([source], tmp_path / state, state=state)
        assert equal(out, {f"{prefix}{name}": tensor for name, tensor in tensors.items()})
        assert json.loads((out / MANIFEST).read_text())["state"] == state
    out = pma.merge([source], tmp_path / "prefix", prefix="ema_optimizer.layers.")
    assert load_file(out / "model.safetensors").keys() == {"0.w", "1.w"}


def test_an_average_that_is_not_there_is_missed(tmp_path):
    save_file(A, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="state=ema, and no EMA is in it; it has head.w, layers.0.w, layers.1.w"):
        open_source(tmp_path, state="ema")
    assert open_source(tmp_path, state="model").tensors.keys() == A.keys()
    save_file({**A, "ema.head.w": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="its EMA has no layers.0.w"):
        open_source(tmp_path, state="ema")
    with pytest.raises(ValueError, match="state=best: choose model or ema"):
        pma.merge([tmp_path], tmp_path / "out", state="best")


def test_the_same_tensors_under_two_prefixes_need_a_word(tmp_path):
    twice = {f"{prefix}.{name}": tensor for prefix in ("online", "target") for name, tensor in A.items()}
    save_file({name: tensor.clone() for name, tensor in twice.items()}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"under two prefixes \(.*online.* and .*target|prefix=target\."):
        open_source(tmp_path)
    assert open_source(tmp_path, prefix="online.").tensors.keys() == A.keys()
    assert open_source(tmp_path, prefix="").tensors.keys() == twice.keys()
    layers = {f"layers.{i}.{name}": torch.ones(2) for i in range(2) for name in ("q", "k", "v")}
    save_file(layers, tmp_path / "model.safetensors")  # layers are alike too, and no copies
    assert open_source(tmp_path).tensors.keys() == layers.keys()


# ---- what lies there instead ----


@pytest.mark.parametrize(
    "names,message",
    [
        ([], "it is empty"),
        (["a.pt", "optimizer.pt"], "found a.pt; give the file itself"),
        (["mp_rank_00_model_states.pt"], "a DeepSpeed checkpoint: run its zero_to_fp32.py"),
        (["mp_rank_00/x"], "Megatron's old format: save it with --ckpt-convert-format torch_dist"),
        (["__0_0.distcp"], "without its .metadata: it is not whole"),
        (["model.gguf"], "GGUF: merge the model that it was made from"),
        (["checkpoint-10/x", "checkpoint-20/x"], "run_dir=.* last=N merges the newest of them"),
        (["README.md", "run.log"], "found README.md, run.log"),
    ],
)
def test_an_error_names_what_lies_in_the_folder(tmp_path, names, message):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=message) as error:
        open_source(tmp_path)
    assert "\n" not in str(error.value)


def test_a_file_of_no_known_kind_is_refused(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"")
    with pytest.raises(ValueError, match="a file of no known kind; give one of .safetensors, .pt"):
        open_source(tmp_path / "a.gguf")
