"""Checkpoints: everything a run needs to go on as if it had never stopped.

One process writes safetensors, several a torch distributed checkpoint, of which each writes its shards; any number of
processes goes on from either. No pickle is executed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed import checkpoint as dcp

from pma.files import publish_folder, write_json
from pma.merge.formats import DCP
from pma.merge.formats.dcp import MetadataUnpickler
from pma.model.build import copy_parameters, laid_out_as
from pma.snapshot import copy_to_cpu


def _optimizer_order(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    # An optimizer numbers its parameters in the order of its groups; names outlast a change of that order.
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def named_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights (weights.NAME) and optimizer state (optimizer.KEY.NAME) of a model in training."""
    names = _optimizer_order(model, optimizer)
    state = {f"weights.{name}": parameter.detach() for name, parameter in model.named_parameters()}
    for index, entry in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{key}.{names[index]}": value for key, value in entry.items()}
    return state


def copy_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], dict[str, dict[str, Tensor]]]:
    """Weights, optimizer state and random state as they stand now; see `copy_to_cpu`."""
    state = named_state(model, optimizer)
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
    tokens = json.loads((folder / "state.json").read_text())["tokens"]
    stored = _read(folder, model)
    parameters = dict(model.named_parameters())
    theirs = {name: tuple(value.shape) for name, value in stored["weights"].items()}
    if theirs != {name: tuple(p.shape) for name, p in parameters.items()}:
        raise ValueError(f"{folder}: a checkpoint of another architecture; give one of the same conf/model")
    if with_weights:
        copy_parameters(model, stored["weights"])
    _put(stored["optimizer"], model, optimizer)
    if "random.cpu" in stored["optimizer"]:
        torch.set_rng_state(stored["optimizer"]["random.cpu"])
    if torch.cuda.is_available() and "random.cuda" in stored["optimizer"]:
        torch.cuda.set_rng_state(stored["optimizer"]["random.cuda"])
    return tokens


def _read(folder: Path, model: nn.Module) -> dict[str, dict[str, Tensor]]:
    if (folder / DCP).exists():
        return _read_shards(folder, model)
    return {part: load_file(folder / f"{part}.safetensors") for part in ("weights", "optimizer")}


class _Reader(dcp.FileSystemReader):
    """Reads a torch distributed checkpoint without executing pickles."""

    def read_metadata(self) -> dcp.Metadata:
        with (Path(self.path) / DCP).open("rb") as file:
            metadata = MetadataUnpickler(file).load()
        metadata.storage_meta = metadata.storage_meta or dcp.metadata.StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


def _read_shards(folder: Path, model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """What a sharded run saved, laid out as `model` is: whole here, or in shards of other processes."""
    reader = _Reader(folder)
    known = reader.read_metadata().state_dict_metadata
    parameters = dict(model.named_parameters())
    state: dict[str, Tensor] = {}
    for name, info in known.items():
        like, dtype = parameters.get(_parameter_of(name)), info.properties.dtype
        fits = like is not None and like.shape == info.size  # a step count is no part of a parameter
        state[name] = torch.empty_like(like, dtype=dtype) if fits else torch.empty(info.size, dtype=dtype)
    dcp.load(state, storage_reader=reader, no_dist=not dist.is_initialized())
    found: dict[str, dict[str, Tensor]] = {"weights": {}, "optimizer": {}}
    for name, tensor in state.items():
        part, _, key = name.partition(".")
        found[part][key] = tensor
    return found


def _parameter_of(name: str) -> str:
    """Parameter that an entry of `named_state` belongs to."""
    part, _, rest = name.partition(".")
    return rest if part == "weights" else rest.partition(".")[2]


def _put(stored: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    parameters = dict(model.named_parameters())
    state = {}
    for index, name in enumerate(_optimizer_order(model, optimizer)):
        moments = {key: laid_out_as(parameters[name], stored[f"{key}.{name}"]) for key in ("exp_avg", "exp_avg_sq")}
        state[index] = {"step": stored[f"step.{name}"], **moments}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def load_optimizer(folders: list[Path], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the mean of the moments of checkpoints, newest first, into `optimizer`; the step count is the newest's.

    Adam's moments are averages of gradients and of their squares, which a mean over checkpoints keeps them.
    """
    stored = _read(folders[0], model)["optimizer"]
    for folder in folders[1:]:
        other = _read(folder, model)["optimizer"]
        for name, tensor in stored.items():
            if name.startswith("exp_avg"):
                tensor += other[name]
    for name, tensor in stored.items():
        if name.startswith("exp_avg"):
            tensor /= len(folders)
    _put(stored, model, optimizer)
