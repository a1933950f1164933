"""Files of torch.save and torch distributed checkpoints, damaged; and pickles that would run a command if loaded."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from campaign import EXECUTED, Outcome, names
from damage import BYTES, cut, damaged, flip, garbage
from merging import judge, mean, merge, models, values
from oracle import Tensors, weighted_sum
from safetensors.numpy import load_file, save_file
from torch.distributed import checkpoint as dcp


class Trap:
    """Whoever unpickles it makes a file named EXECUTED."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {EXECUTED}",)


class Evaluated:
    """The same, by eval."""

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open('{EXECUTED}', 'w').close()",)


def _trap(random: Random) -> Any:
    return random.choice([Trap, Evaluated])()


def _arrays(tensors: Any) -> Tensors | None:
    """Tensors as the oracle wants them; None of anything else."""
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        return None
    return {str(name): value.double().numpy() for name, value in tensors.items()}


# ---- torch.save


def _other_root(path: Path, random: Random) -> None:
    """No state dict."""
    tensor = torch.ones(4, 3)
    roots = [[tensor], tensor, 7, None, "text", {}, {"epoch": 3}, {"a": tensor, "b": 7}, {1: tensor}, (tensor,)]
    torch.save(random.choice([*roots, {"state_dict": [tensor]}, {"model": {}, "other": {"w": tensor}}]), path)


def _other_tensors(path: Path, random: Random) -> None:
    """Tensors of a kind that cannot be averaged."""
    tensors = torch.load(path, weights_only=True)
    name = random.choice(list(tensors))
    other = [tensors[name].to_sparse(), tensors[name].to(torch.complex64), torch.empty(4, 3, device="meta")]
    other += [tensors[name].t(), tensors[name][:2], tensors[name].int(), tensors[name].expand(2, 4, 3), torch.ones(0)]
    torch.save({**tensors, name: random.choice(other)}, path)


def _executing(path: Path, random: Random) -> None:
    """A pickle that would run a command: bare, or in torch's zip, as the root or as a value."""
    value = _trap(random)
    value = random.choice([value, {"w": value}, {"w": torch.ones(4, 3), "extra": value}, {value: torch.ones(2)}])
    if random.random() < 0.3:
        path.write_bytes(pickle.dumps(value))
    else:
        torch.save(value, path)


def _torch_expected(path: Path) -> Tensors | None:
    try:
        return _arrays(torch.load(path, weights_only=True))
    except Exception:  # whatever its bytes happen to mean
        return None


def damaged_torch(random: Random, folder: Path) -> Outcome:
    """One of three sources, each a file of torch.save, is damaged."""
    name = random.choice(["pytorch_model.bin", "model.pt", "last.ckpt"])
    sources = models(random, folder)
    for source in sources:
        tensors = {key: torch.from_numpy(value) for key, value in load_file(source / "model.safetensors").items()}
        (source / "model.safetensors").unlink()
        torch.save(tensors, source / name)
    victim = random.choice(sources) / name
    kinds = (flip, flip, cut, garbage, _other_root, _other_root, _other_tensors, _executing, _executing)
    damage = damaged(victim, random, kinds)
    before = names(folder)
    given = sources if name == "pytorch_model.bin" else [source / name for source in sources]
    expected = weighted_sum([_torch_expected(source / name) for source in sources], [1 / 3] * 3)
    return judge(folder, merge(folder, given), before, victim.parent.name, damage, expected)


# ---- torch distributed checkpoints


def _save_dcp(tensors: Tensors, folder: Path) -> None:
    state = {name: torch.from_numpy(np.asarray(value)) for name, value in tensors.items()}
    dcp.save(state, checkpoint_id=folder, no_dist=True)


def _read_dcp(folder: Path, metadata: bytes, like: Tensors) -> Tensors | None:
    """What torch's own reader makes of the shards, by the metadata that was written."""
    damaged_metadata = (folder / ".metadata").read_bytes()
    (folder / ".metadata").write_bytes(metadata)
    state = {name: torch.empty(value.shape) for name, value in like.items()}
    try:
        dcp.load(state, checkpoint_id=folder, no_dist=True)
    except (Exception, dcp.CheckpointException):  # whatever its bytes mean; torch's own is no Exception
        return None
    finally:
        (folder / ".metadata").write_bytes(damaged_metadata)
    return _arrays(state)


def _metadata(path: Path, random: Random, change: Any) -> None:
    contents = pickle.loads(path.read_bytes())  # written a moment ago, by ourselves
    path.write_bytes(pickle.dumps(change(contents) or contents))


def _misplaced(path: Path, random: Random) -> None:
    """A tensor that lies elsewhere: outside, in no file, beyond its end, at another place."""
    places = [
        "../elsewhere/__0_0.distcp",
        str(path.parents[1] / "elsewhere/__0_0.distcp"),
        "none.distcp",
        "",
        "a\0b",
        7,
    ]

    def change(contents: Any) -> None:
        info = random.choice(list(contents.storage_data.values()))
        key = random.choice(["relative_path", "relative_path", "offset", "length"])
        numbers = [-1, 0, 1, 10**6, 2**63, None, 1.5, "1"]
        setattr(info, key, random.choice(places if key == "relative_path" else numbers))

    _metadata(path, random, change)


def _misshapen(path: Path, random: Random) -> None:
    """A tensor of another shape, in other pieces, or that is no tensor."""

    def change(contents: Any) -> None:
        table = contents.state_dict_metadata
        name = random.choice(list(table))
        kind = random.randrange(5)
        if kind == 0:
            table[name].size = random.choice([torch.Size([3, 4]), torch.Size([12]), (-4, -3), (2**40, 3), None, "x"])
        elif kind == 1:
            chunk = table[name].chunks[0]
            setattr(chunk, random.choice(["offsets", "sizes"]), random.choice([(1, 0), (-1, 0), (4, 4), (), None]))
        elif kind == 2:
            table[name].chunks = random.choice([[], None, 2 * table[name].chunks])
        elif kind == 3:
            table[name] = random.choice([None, 7, "x"])
        else:
            table[random.choice([7, None, ("a",)])] = table.pop(name)

    _metadata(path, random, change)


def _other_metadata(path: Path, random: Random) -> None:
    """A pickle of something else, or one that would run a command."""
    if random.random() < 0.3:
        path.write_bytes(pickle.dumps(random.choice([None, [], {}, 7, "text", {"state_dict_metadata": {}}])))
        return

    def change(contents: Any) -> Any:
        if random.random() < 0.4:
            return _trap(random)
        table = random.choice([contents.state_dict_metadata, contents.storage_data])
        table[random.choice(list(table))] = _trap(random)
        return None

    _metadata(path, random, change)


def _other_shard(path: Path, random: Random) -> None:
    """A shard whose entry holds a pickle that would run a command."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_trap(random)))
        archive.writestr("archive/data/0", bytes(48))
        archive.writestr("archive/version", "3\n")


def damaged_dcp(random: Random, folder: Path) -> Outcome:
    """One of three torch distributed checkpoints is damaged."""
    sources = [folder / f"step-{step}" for step in (10, 20, 30)]
    given = [values(random) for _ in sources]
    for source, tensors in zip(sources, given, strict=True):
        _save_dcp(tensors, source)
    _save_dcp(given[0], folder / "elsewhere")
    place = random.randrange(3)
    metadata, shard = sources[place] / ".metadata", sources[place] / "__0_0.distcp"
    written = metadata.read_bytes()
    expected: Sequence[Tensors | None] = given
    if random.random() < 0.7:
        kinds = (flip, flip, cut, garbage, _misplaced, _misplaced, _misshapen, _misshapen, _other_metadata)
        damage = damaged(metadata, random, (*kinds, _other_metadata))
    else:
        damage = damaged(shard, random, (*BYTES, flip, _other_shard, _no_file))
        read = partial(_read_dcp, metadata=written, like=given[place])
        expected = [*given[:place], read(sources[place]) if damage else given[place], *given[place + 1 :]]
    before = names(folder)
    more = random.choice([[], ["dtype=bfloat16"]])
    tolerance = 1e-2 if more else 1e-5
    ended = merge(folder, sources, *more)
    return judge(
        folder, ended, before, sources[place].name, damage, weighted_sum(expected, [1 / 3] * 3), tolerance=tolerance
    )


def _no_file(path: Path, random: Random) -> None:
    path.write_bytes(b"")


def dcp_output(random: Random, folder: Path) -> Outcome:
    """A merge written as a torch distributed checkpoint, which torch's own reader loads."""
    sources = models(random, folder)
    damage = damaged(sources[0] / "model.safetensors", random, BYTES, controls=0.7)
    expected, before = mean(sources), names(folder)
    ended = merge(folder, sources, "format=dcp")
    if ended.code == 0 and not ended.traceback and expected is not None:
        merged = _read_dcp(folder / "merged", (folder / "merged" / ".metadata").read_bytes(), expected)
        arrays = {name: np.ascontiguousarray(value, np.float32) for name, value in (merged or {}).items()}
        save_file(arrays, folder / "merged" / "model.safetensors")
    return judge(folder, ended, before, sources[0].name, damage, expected)
