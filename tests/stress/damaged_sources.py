"""Sources of a merge, damaged: the right average or one line, never anything between."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from random import Random

import numpy as np
from campaign import Outcome, command, names, refusal
from oracle import differs, read, weighted_sum
from safetensors.numpy import save_file


def model(random: Random, folder: Path) -> None:
    """Write a folder with a few tensors, as Hugging Face lays a model out."""
    numbers = np.random.default_rng(random.getrandbits(32))
    folder.mkdir(parents=True)
    tensors = {f"layer.{k}.weight": numbers.standard_normal((4, 3)).astype("float32") for k in range(4)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))


def _flip(data: bytearray, random: Random) -> None:
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _cut(data: bytearray, random: Random) -> None:
    del data[random.randrange(len(data)) :]


def _header(data: bytearray, random: Random) -> None:
    """Change one field of the header."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    entry = header[random.choice([name for name in header if name != "__metadata__"])]
    field = random.choice(["dtype", "shape", "data_offsets"])
    values = {
        "dtype": ["F16", "I32", "BOOL", "F99", None, 3],
        "shape": [[12], [4, 4], [-4, -3], [2**40, 2**40], [], None, ["4", "3"]],
        "data_offsets": [[0, 48], [1, 49], [-48, 0], [48, 0], [0, 2**63], [0], None, [0.0, 48.0]],
    }
    entry[field] = random.choice(values[field])
    text = json.dumps(header).encode()
    data[: 8 + length] = struct.pack("<Q", len(text)) + text


def damaged_safetensors(random: Random, folder: Path) -> Outcome:
    """One of three sources has a damaged file."""
    sources = [folder / f"checkpoint-{step}" for step in (10, 20, 30)]
    for source in sources:
        model(random, source)
    victim = random.choice(sources) / "model.safetensors"
    data = bytearray(victim.read_bytes())
    damage = random.choice([_flip, _cut, _header, None])
    if damage:  # without any, the merge has to be right: a campaign that is refused for another reason shows here
        damage(data, random)
        victim.write_bytes(data)
    before = names(folder)
    ended = command(
        "pma.merge", f"sources=[{','.join(map(str, sources))}]", "method=sma", "output=merged", folder=folder
    )
    if outcome := refusal(ended, folder, before, about=victim.parent.name):
        return outcome if damage else Outcome("wrong", f"sources that nothing happened to: {outcome}")
    weights = [1 / 3] * 3
    if difference := differs(read(folder / "merged"), weighted_sum([read(source) for source in sources], weights)):
        return Outcome("wrong", difference)
    return Outcome("right")
