"""Checkpoints: everything a run needs to go on as if it had never stopped.

One process writes safetensors, several write a torch distributed checkpoint, each its shards; any number of processes
goes on from either. No pickle is executed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import xxhash
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed import checkpoint as dcp

from pma.files import publish_folder, remove_folder, write_json
from pma.json_files import read_json
from pma.layout import checkpoints, position_of
from pma.merge.formats import DCP
from pma.merge.formats.dcp_metadata import read_metadata
from pma.model.build import copy_parameters, laid_out_as
from pma.snapshot import copy_to_cpu

State = dict[str, dict[str, Tensor]]  # `weights` by name of the parameter, and `optimizer` by KEY.NAME


def _optimizer_order(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    # An optimizer numbers its parameters in the order of its groups; names outlast a change of that order.
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def named_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return weights (weights.NAME) and optimizer state (optimizer.KEY.NAME) of a model in training, not copied."""
    names = _optimizer_order(model, optimizer)
    state = {f"weights.{name}": parameter.detach() for name, parameter in model.named_parameters()}
    for index, entry in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{key}.{names[index]}": value for key, value in entry.items()}
    return state


def copy_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], State]:
    """Copy weights, optimizer state and random state as they stand now.

    Returns:
        A function that waits for the copies and returns them on the CPU; see `pma.snapshot.copy_to_cpu`.
    """
    state = named_state(model, optimizer)
    state["optimizer.random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        state["optimizer.random.cuda"] = torch.cuda.get_rng_state()
    copies = copy_to_cpu(state)
    return lambda: _by_file({name: tensor.contiguous() for name, tensor in copies().items()})


def _by_file(state: dict[str, Tensor]) -> State:
    files: State = {"weights": {}, "optimizer": {}}
    for name, tensor in state.items():
        file, _, key = name.partition(".")
        files[file][key] = tensor
    return files


def save_checkpoint(folder: Path, state: Callable[[], State], tokens: int) -> None:
    """Publish what `copy_state` returned, and the position: `tokens` consumed."""
    with publish_folder(folder) as aside:
        for file, tensors in state().items():
            save_file(tensors, aside / f"{file}.safetensors")
        write_state(aside, tokens, file_hashes(aside))


def write_state(folder: Path, tokens: int, hashes: dict[str, str]) -> None:
    """Write state.json of a checkpoint: the position in tokens, and `file_hashes` of all that it holds."""
    write_json(folder / "state.json", {"tokens": tokens, "files": hashes})


def file_hashes(folder: Path, files: str = "*") -> dict[str, str]:
    """XXH3-128 of the files of a folder whose names match, hex by name."""
    hashes = {}
    for path in sorted(folder.glob(files)):
        with open(path, "rb") as file:
            hashes[path.name] = hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
    return hashes


def drop_old_checkpoints(run_dir: Path, newest: int, fork_points: list[int]) -> None:
    """Remove all checkpoints of a run but the `newest` (a count) and those at `fork_points` (tokens)."""
    passing = [path for tokens, path in checkpoints(run_dir).items() if tokens not in fork_points]
    for path in passing[:-newest]:
        remove_folder(path)


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restore a checkpoint in place: weights, optimizer state and random state.

    Returns:
        The position: tokens consumed.

    Raises:
        ValueError: when the folder is no checkpoint, one of another model, or one whose bytes have changed.
    """
    if not (folder / "state.json").is_file():
        raise ValueError(f"{folder}: no checkpoint there (state.json is missing); give a folder under RUN/checkpoints")
    state = read_json(folder / "state.json", tokens=int)
    tokens, hashes = state["tokens"], state.get("files", {})  # the first checkpoints had no hashes
    named = position_of(folder.name) if folder.name.startswith("tokens-") else None  # a merge may have any name
    if not isinstance(hashes, dict) or named not in (None, tokens):
        raise ValueError(
            f"{folder / 'state.json'}: {tokens} tokens is not what the name of its folder says, or its hashes are "
            f"damaged; remove the folder: the run then goes on from the checkpoint before"
        )
    _require_unchanged(folder, hashes)
    stored = _read(folder, model)
    shapes = {name: tuple(value.shape) for name, value in stored["weights"].items()}
    if shapes != {name: tuple(p.shape) for name, p in model.named_parameters()}:
        raise ValueError(f"{folder}: a checkpoint of another architecture; give one of the same conf/model")
    copy_parameters(model, stored["weights"])
    _restore_optimizer(stored["optimizer"], model, optimizer)
    if "random.cpu" in stored["optimizer"]:
        torch.set_rng_state(stored["optimizer"]["random.cpu"])
    if torch.cuda.is_available() and "random.cuda" in stored["optimizer"]:
        torch.cuda.set_rng_state(stored["optimizer"]["random.cuda"])
    return tokens


def _require_unchanged(folder: Path, hashes: dict[str, str]) -> None:
    names = sorted(hashes)
    if dist.is_initialized():  # each process looks at its share
        names = names[dist.get_rank() :: dist.get_world_size()]
    for name in names:
        now = file_hashes(folder, name)
        if now.get(name) != hashes[name]:
            what = "changed since it was written" if now else "missing"
            raise ValueError(
                f"{folder / name}: {what}; remove the folder {folder}: the run then goes on from the checkpoint before"
            )


def load_optimizer(folders: list[Path], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the mean of the moments of several checkpoints into `optimizer`; the step count is the first folder's.

    Adam's moments are moving averages of gradients and of their squares; the mean of such averages is another one.

    Args:
        folders: checkpoints, newest first.
    """
    stored = _read(folders[0], model)["optimizer"]
    for folder in folders[1:]:
        older = _read(folder, model)["optimizer"]
        for name, tensor in stored.items():
            if name.startswith("exp_avg"):
                tensor += older[name]
    for name, tensor in stored.items():
        if name.startswith("exp_avg"):
            tensor /= len(folders)
    _restore_optimizer(stored, model, optimizer)


def _restore_optimizer(stored: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    parameters = dict(model.named_parameters())
    state = {}
    for index, name in enumerate(_optimizer_order(model, optimizer)):
        moments = {key: laid_out_as(parameters[name], stored[f"{key}.{name}"]) for key in ("exp_avg", "exp_avg_sq")}
        state[index] = {"step": stored[f"step.{name}"], **moments}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _read(folder: Path, model: nn.Module) -> State:
    if (folder / DCP).exists():
        return _read_shards(folder, model)
    return {file: load_file(folder / f"{file}.safetensors") for file in ("weights", "optimizer")}


class _Reader(dcp.FileSystemReader):
    """Reads a torch distributed checkpoint without executing pickles."""

    def read_metadata(self) -> dcp.Metadata:
        metadata = read_metadata(Path(self.path) / DCP)
        metadata.storage_meta = metadata.storage_meta or dcp.metadata.StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


def _read_shards(folder: Path, model: nn.Module) -> State:
    """Read what several processes saved, laid out as `model` is: whole in one process, in shards in several."""
    reader = _Reader(folder)
    entries: dict[str, Any] = reader.read_metadata().state_dict_metadata
    parameters = dict(model.named_parameters())
    state: dict[str, Tensor] = {}
    for name, entry in entries.items():
        parameter, dtype = parameters.get(_parameter_of(name)), entry.properties.dtype
        # A step count has another shape than its parameter, and is whole everywhere.
        if parameter is not None and parameter.shape == entry.size:
            state[name] = torch.empty_like(parameter, dtype=dtype)
        else:
            state[name] = torch.empty(entry.size, dtype=dtype)
    dcp.load(state, storage_reader=reader, no_dist=not dist.is_initialized())
    return _by_file(state)


def _parameter_of(name: str) -> str:
    """Return the parameter that an entry of `named_state` belongs to."""
    file, _, rest = name.partition(".")
    return rest if file == "weights" else rest.partition(".")[2]
