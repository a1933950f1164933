"""Checkpoints: everything a run needs to go on as if it had never stopped. No pickles: safetensors and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pma.files import publish_folder, write_json
from pma.snapshot import copy_to_cpu, list_by_tokens


def checkpoint_dir(run_dir: Path, tokens: int) -> Path:
    """Folder of the checkpoint after `tokens` tokens."""
    return run_dir / "checkpoints" / f"tokens-{tokens:015d}"


def checkpoints(run_dir: Path) -> dict[int, Path]:
    """Checkpoints of a run by token count, ascending."""
    return list_by_tokens(run_dir / "checkpoints")


def _optimizer_order(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    # An optimizer numbers its parameters in the order of its groups; names outlast a change of that order.
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def copy_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], dict[str, dict[str, Tensor]]]:
    """Weights, optimizer state and random state as they stand now; see `copy_to_cpu`."""
    names = _optimizer_order(model, optimizer)
    state = {f"weights.{name}": parameter for name, parameter in model.named_parameters()}
    for index, entry in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{key}.{names[index]}": value for key, value in entry.items()}
    state["optimizer.random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        state["optimizer.random.cuda"] = torch.cuda.get_rng_state()
    copies = copy_to_cpu(state)

    def by_file() -> dict[str, dict[str, Tensor]]:
        files: dict[str, dict[str, Tensor]] = {"weights": {}, "optimizer": {}}
        for name, tensor in copies().items():
            file, _, key = name.partition(".")
            files[file][key] = tensor.contiguous()
        return files

    return by_file


def save_checkpoint(folder: Path, state: Callable[[], dict[str, dict[str, Tensor]]], tokens: int) -> None:
    """Publish what `copy_state` returned, and the position: `tokens` consumed."""
    with publish_folder(folder) as aside:
        for file, tensors in state().items():
            save_file(tensors, aside / f"{file}.safetensors")
        write_json(aside / "state.json", {"tokens": tokens})


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, with_weights: bool = True
) -> int:
    """Restore a checkpoint in place and return the tokens consumed; `with_weights=False` leaves the weights alone.

    Raises:
        ValueError: when the folder is no checkpoint, or one of another model.
    """
    if not (folder / "state.json").is_file():
        raise ValueError(f"{folder}: no checkpoint there (state.json is missing); give a folder under RUN/checkpoints")
    weights = load_file(folder / "weights.safetensors")
    parameters = dict(model.named_parameters())
    if {k: tuple(v.shape) for k, v in weights.items()} != {k: tuple(v.shape) for k, v in parameters.items()}:
        raise ValueError(f"{folder}: a checkpoint of another architecture; give one of the same conf/model")
    if with_weights:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(weights[name])
    stored = load_file(folder / "optimizer.safetensors")
    _put(stored, model, optimizer)
    torch.set_rng_state(stored["random.cpu"])
    if torch.cuda.is_available() and "random.cuda" in stored:
        torch.cuda.set_rng_state(stored["random.cuda"])
    return json.loads((folder / "state.json").read_text())["tokens"]


def _put(stored: dict[str, torch.Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    state = {
        index: {key: stored[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
        for index, name in enumerate(_optimizer_order(model, optimizer))
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def load_optimizer(folders: list[Path], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the mean of the moments of checkpoints, newest first, into `optimizer`; the step count is the newest's.

    Adam's moments are averages of gradients and of their squares, which a mean over checkpoints keeps them.
    """
    stored = load_file(folders[0] / "optimizer.safetensors")
    for folder in folders[1:]:
        other = load_file(folder / "optimizer.safetensors")
        for name, tensor in stored.items():
            if name.startswith("exp_avg"):
                tensor += other[name]
    for name, tensor in stored.items():
        if name.startswith("exp_avg"):
            tensor /= len(folders)
    _put(stored, model, optimizer)
