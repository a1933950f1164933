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
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn
from torch.distributed import checkpoint as dcp

from pma.files import publish_folder, remove_folder, write_json
from pma.json_files import read_json
from pma.layout import checkpoints, position_of
from pma.merge.formats import DCP
from pma.merge.formats.dcp_metadata import read_metadata
from pma.model.build import copy_parameters, laid_out_as
from pma.snapshot import copy_to_cpu
from pma.train.state import TrainingState

# `weights` by name of the parameter, `optimizer` by KEY.NAME, and, of a run with averages, `averages` by INDEX.NAME, or
# `copies` and sum.NAME
Files = dict[str, dict[str, Tensor]]
_GROUP = {"k": int, "weight_sum": float, "lr_max": float}  # numbers that schedule-free AdamW counts for each group


def _optimizer_order(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    # An optimizer numbers its parameters in the order of its groups; names outlast a change of that order.
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def named_state(training: TrainingState) -> dict[str, Tensor]:
    """Return all that changes in training, not copied: weights.NAME, optimizer.KEY.NAME, averages.INDEX.NAME.

    Of weights that are overwritten, averages.copies and averages.sum.NAME.
    What an optimizer counts for a group of parameters stands under optimizer.group.KEY-INDEX.
    """
    names = _optimizer_order(training.model, training.optimizer)
    state = {f"weights.{name}": parameter.detach() for name, parameter in training.model.named_parameters()}
    held = training.optimizer.state_dict()
    for index, entry in held["state"].items():
        state |= {f"optimizer.{key}.{names[index]}": value for key, value in entry.items()}
    for index, group in enumerate(held["param_groups"]):
        counts = {key: group[key] for key in _GROUP if key in group}
        state |= {f"optimizer.group.{key}-{index}": torch.tensor(n, dtype=torch.float64) for key, n in counts.items()}
    running = training.averages.state() | training.overwriting.state()
    return state | {f"averages.{name}": average for name, average in running.items()}


def copy_state(training: TrainingState) -> Callable[[], Files]:
    """Copy what changes in training, and the random state, as they stand now.

    Returns:
        A function that waits for the copies and returns them on the CPU; see `pma.snapshot.copy_to_cpu`.
    """
    state = named_state(training)
    state["optimizer.random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        state["optimizer.random.cuda"] = torch.cuda.get_rng_state()
    copies = copy_to_cpu(state)
    return lambda: _by_file({name: tensor.contiguous() for name, tensor in copies().items()})


def _by_file(state: dict[str, Tensor]) -> Files:
    files: Files = {"weights": {}, "optimizer": {}}
    for name, tensor in state.items():
        file, _, key = name.partition(".")
        files.setdefault(file, {})[key] = tensor
    return files


def save_checkpoint(folder: Path, state: Callable[[], Files], tokens: int) -> None:
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


def load_checkpoint(folder: Path, training: TrainingState) -> int:
    """Restore a checkpoint in place: weights, optimizer, averages and random state.

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
    model = training.model
    stored = _read(folder, model)
    shapes = {name: tuple(value.shape) for name, value in stored["weights"].items()}
    if shapes != {name: tuple(p.shape) for name, p in model.named_parameters()}:
        raise ValueError(f"{folder}: a checkpoint of another architecture; give one of the same conf/model")
    copy_parameters(model, stored["weights"])
    _restore_optimizer(folder, stored["optimizer"], training)
    training.averages.load(stored.get("averages", {}))
    training.overwriting.load(stored.get("averages", {}))
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


def load_optimizer(folders: list[Path], training: TrainingState) -> None:
    """Put the mean of the moments of several checkpoints into the optimizer; the step count is the first folder's.

    Adam's moments are moving averages of gradients and of their squares; the mean of such averages is another one.

    Args:
        folders: checkpoints, newest first.
    """
    stored = _read(folders[0], training.model)["optimizer"]
    for folder in folders[1:]:
        older = _read(folder, training.model)["optimizer"]
        for name, tensor in stored.items():
            if name.startswith("exp_avg"):
                tensor += older[name]
    for name, tensor in stored.items():
        if name.startswith("exp_avg"):
            tensor /= len(folders)
    _restore_optimizer(folders[0], stored, training)


def _restore_optimizer(folder: Path, stored: dict[str, Tensor], training: TrainingState) -> None:
    model, optimizer = training.model, training.optimizer
    parameters, names = dict(model.named_parameters()), _optimizer_order(model, optimizer)
    keys = ("z", "exp_avg_sq") if isinstance(optimizer, AdamWScheduleFree) else ("exp_avg", "exp_avg_sq", "step")
    if f"{keys[0]}.{names[0]}" not in stored:
        raise ValueError(f"{folder}: the state of another optimizer; give train.optimizer as that run had it")
    state = {}
    for index, name in enumerate(names):
        entry = {key: stored[f"{key}.{name}"] for key in keys}
        state[index] = {k: v if k == "step" else laid_out_as(parameters[name], v) for k, v in entry.items()}
    groups = optimizer.state_dict()["param_groups"]
    for index, group in enumerate(groups):
        group |= {key: kind(stored[f"group.{key}-{index}"]) for key, kind in _GROUP.items() if key in group}
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _read(folder: Path, model: nn.Module) -> Files:
    if (folder / DCP).exists():
        return _read_shards(folder, model)
    averages = ["averages"] if (folder / "averages.safetensors").exists() else []
    return {file: load_file(folder / f"{file}.safetensors") for file in ("weights", "optimizer", *averages)}


class _Reader(dcp.FileSystemReader):
    """Reads a torch distributed checkpoint without executing pickles."""

    def read_metadata(self) -> dcp.Metadata:
        metadata = read_metadata(Path(self.path) / DCP)
        metadata.storage_meta = metadata.storage_meta or dcp.metadata.StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


def _read_shards(folder: Path, model: nn.Module) -> Files:
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
