"""Safetensors of a merge, damaged: the right average or one line, never anything between."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from campaign import Outcome, names
from damage import BYTES, JSON, damaged
from merging import judge, mean, merge, model, models, values
from oracle import read_shards, weighted_sum
from safetensors.numpy import load_file, save_file


def _parts(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _write(path: Path, text: str, data: bytes, length: int | None = None) -> None:
    header = text.encode(errors="surrogateescape")
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)


def _field(path: Path, random: Random) -> None:
    """Change one field of the header."""
    header, data = _parts(path)
    entry = header[random.choice([name for name in header if name != "__metadata__"])]
    kind = random.choice(["dtype", "shape", "data_offsets"])
    choices = {
        "dtype": ["F16", "I32", "BOOL", "F99", None, 3],
        "shape": [[12], [4, 4], [-4, -3], [2**40, 2**40], [], None, ["4", "3"], [True, 12], [4, 3, 0]],
        "data_offsets": [[0, 48], [1, 49], [-48, 0], [48, 0], [0, 2**63], [0], None, [0.0, 48.0]],
    }
    entry[kind] = random.choice(choices[kind])
    _write(path, json.dumps(header), data)


def _layout(path: Path, random: Random) -> None:
    """Tensors that overlap, stand twice, lie apart, or data that nothing names."""
    header, data = _parts(path)
    first, second = random.sample([name for name in header if name != "__metadata__"], 2)
    kind = random.randrange(6)
    if kind == 0:
        header[second]["data_offsets"] = header[first]["data_offsets"]
    elif kind == 1:
        text = json.dumps(header)
        return _write(path, text[:-1] + f', "{first}": {json.dumps(header[second])}}}', data)
    elif kind == 2:  # a gap before, in the middle or behind
        at = random.choice([0, header[first]["data_offsets"][0], len(data)])
        data = data[:at] + bytes(8) + data[at:]
        for entry in header.values():
            if "data_offsets" in entry and entry["data_offsets"][0] >= at:
                entry["data_offsets"] = [place + 8 for place in entry["data_offsets"]]
    elif kind == 3:
        del header[first]
    elif kind == 4:
        data += random.randbytes(random.randint(1, 100))
    else:  # two tensors swap their bytes: what the file says then
        header[first]["data_offsets"], header[second]["data_offsets"] = (
            header[second]["data_offsets"],
            header[first]["data_offsets"],
        )
    _write(path, json.dumps(header), data)


def _length(path: Path, random: Random) -> None:
    """A length of the header that is not its own."""
    header, data = _parts(path)
    text = json.dumps(header)
    _write(path, text, data, random.choice([0, 1, len(text) - 1, len(text) + 1, 10**8, 2**32, 2**63, 2**64 - 1]))


def _text(path: Path, random: Random) -> None:
    """A header that is no JSON object."""
    _, data = _parts(path)
    _write(path, random.choice(["", "[]", "null", "7", "{", "[" * 100_000, "\udcff\udcfe", '{"a": NaN}']), data)


def damaged_safetensors(random: Random, folder: Path) -> Outcome:
    """One of three sources has a damaged file."""
    sources = models(random, folder)
    victim = random.choice(sources) / "model.safetensors"
    damage = damaged(victim, random, (*BYTES, _field, _field, _field, _layout, _layout, _length, _text))
    before = names(folder)
    return judge(folder, merge(folder, sources), before, victim.parent.name, damage, mean(sources))


def _index(folder: Path) -> Path:
    return folder / "model.safetensors.index.json"


def _sharded(random: Random, folder: Path) -> Path:
    """A model in two shards."""
    path = model(random, folder) / "model.safetensors"
    tensors = load_file(path)
    path.unlink()
    weight_map = {}
    for k, half in enumerate([list(tensors)[::2], list(tensors)[1::2]], 1):
        shard = f"model-{k:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in half}, folder / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(half, shard)
    _index(folder).write_text(json.dumps({"metadata": {"total_size": 192}, "weight_map": weight_map}))
    return folder


def _misled(path: Path, random: Random) -> None:
    """An index that names a file that is not there, outside, or no file; one shard too few; a shard that has gone."""
    index = json.loads(path.read_bytes())
    name, files = random.choice(list(index["weight_map"])), sorted(set(index["weight_map"].values()))
    elsewhere = [
        "../elsewhere/model.safetensors",
        str(path.parents[1] / "elsewhere/model.safetensors"),
        "/etc/hostname",
    ]
    kind = random.randrange(6)
    if kind == 0:
        index["weight_map"][name] = random.choice([*elsewhere, "model.safetensors", "", ".", "a\x00b", "x" * 5000])
    elif kind == 1:
        index["weight_map"] = {k: v.replace(files[0], random.choice(elsewhere)) for k, v in index["weight_map"].items()}
    elif kind == 2:
        index["weight_map"] = {k: v for k, v in index["weight_map"].items() if v == files[0]}
    elif kind == 3:
        index["weight_map"]["none"] = files[0]
    elif kind == 4:
        (path.parent / files[0]).unlink()
        index["again"] = True
    else:  # one tensor in both shards
        both = load_file(path.parent / files[0]) | load_file(path.parent / files[1])
        save_file(both, path.parent / files[0], metadata={"format": "pt"})
        index["again"] = True
    path.write_text(json.dumps(index))


def damaged_shards(random: Random, folder: Path) -> Outcome:
    """One of three sources in shards has a damaged index or shard."""
    sources = [_sharded(random, folder / f"checkpoint-{step}") for step in (10, 20, 30)]
    model(random, folder / "elsewhere")
    victim = random.choice(sources)
    if random.random() < 0.7:
        damage = damaged(_index(victim), random, (*JSON, _misled, _misled, _misled, _misled))
    else:
        damage = damaged(random.choice(sorted(victim.glob("*.safetensors"))), random, (*BYTES, _field))
    before = names(folder)
    expected = weighted_sum([read_shards(source) for source in sources], [1 / 3] * 3)
    return judge(folder, merge(folder, sources), before, victim.name, damage, expected)


# Relative errors of the types that are stored.
_STORED = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1e-2, "float64": 1e-5}
_LARGEST = {"float16": 65504.0}


def odd_numbers(random: Random, folder: Path) -> Outcome:
    """NaN, infinity and huge numbers in a source, and sums that the stored type cannot hold."""
    sources = models(random, folder)
    dtype, accumulate = random.choice(list(_STORED)), random.choice(["float32", "float64"])
    number = random.choice([np.nan, np.inf, -np.inf, 1e5, -7e4, 3.4e38, -3.4e38, 1e30, 1e-40, 0.0])
    damaged_ones = random.choice([sources, [random.choice(sources)]])
    for source in damaged_ones:
        tensors = {**values(random)}
        name = random.choice(list(tensors))
        tensors[name][random.randrange(4), random.randrange(3)] = number
        save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    expected = mean(sources)
    largest = max(float(np.abs(values).max()) for values in expected.values())
    finite = all(np.isfinite(values).all() for values in expected.values())  # max() of NaN is any of its numbers
    fits = finite and largest < _LARGEST.get(dtype, 3.3e38)
    before = names(folder)
    ended = merge(folder, sources, f"dtype={dtype}", f"accumulate={accumulate}")
    subject = "layer." if np.isfinite(number) else "checkpoint-"  # a sum is of all of them
    return judge(
        folder, ended, before, subject, "" if fits else f"{number} as {dtype}", expected, tolerance=_STORED[dtype]
    )
