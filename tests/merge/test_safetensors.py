"""Headers of safetensors files: what the library refuses is refused, in one line that names file and tensor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors
from safetensors.numpy import load_file

import pma
from pma.merge.formats import open_source

A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
B = {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}


def write(folder: Path, header: dict | str, size: int = 16) -> Path:
    """A file with a header and `size` bytes of data."""
    folder.mkdir(exist_ok=True)
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    text += b" " * (-len(text) % 8)
    path = folder / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(range(size)))
    return path


BAD = {
    "overlapping": ({"a": A, "b": {**B, "data_offsets": [0, 8]}}, 16, "tensor b overlaps"),
    "half overlapping": ({"a": A, "b": {**B, "data_offsets": [4, 12]}}, 12, "tensor b overlaps"),
    "shifted": (
        {"a": {**A, "data_offsets": [8, 16]}, "b": {**B, "data_offsets": [16, 24]}},
        24,
        "tensor a leaves a gap",
    ),
    "gapped": ({"a": A, "b": {**B, "data_offsets": [12, 20]}}, 20, "tensor b leaves a gap"),
    "negative": ({"a": {**A, "data_offsets": [-8, 0]}, "b": {**B, "data_offsets": [0, 8]}}, 8, "tensor a .*impossible"),
    "negative shape": ({"a": {**A, "shape": [-1, -2]}, "b": B}, 16, "tensor a .*impossible"),
    "backwards": ({"a": {**A, "data_offsets": [8, 0]}, "b": B}, 16, "tensor [ab] "),
    "too short": ({"a": {**A, "shape": [1]}, "b": B}, 16, "tensor a should hold 4 bytes and holds 8"),
    "more data": ({"a": A, "b": B}, 20, "header promises"),
    "repeated": (f'{{"a":{json.dumps(B)},"b":{json.dumps(A)},"a":{json.dumps(B)}}}', 16, "names a twice"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [2]}, "b": B}, 16, "tensor a has no dtype, shape and data_offsets"),
    "no dtype": ({"a": {"shape": [2], "data_offsets": [0, 8]}, "b": B}, 16, "tensor a has no dtype"),
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 8]}, "b": B}, 16, "tensor a has no dtype"),
    "no object": ({"a": [1, 2], "b": B}, 16, "tensor a has no dtype"),
    "a number": ("7", 16, "no JSON"),
    "no text": ('{"a": ', 16, "no JSON"),
    "fractions": ({"a": {**A, "data_offsets": [0, 8.0]}, "b": B}, 16, "tensor a .*impossible"),
    "three offsets": ({"a": {**A, "data_offsets": [0, 8, 8]}, "b": B}, 16, "tensor a .*impossible"),
}


@pytest.mark.parametrize("header,size,message", BAD.values(), ids=BAD)
def test_damaged_headers_are_refused_as_by_the_library(tmp_path, header, size, message):
    path = write(tmp_path / "a", header, size)
    if not isinstance(header, str) or "twice" not in message:  # of a repeated name the library takes the last
        with pytest.raises(safetensors.SafetensorError):
            load_file(path)
    with pytest.raises(ValueError, match=f"model.safetensors: .*{message}.*; fetch or train it again") as error:
        pma.merge([path.parent], tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_entries_may_stand_in_any_order_and_be_empty(tmp_path):
    empty = {"dtype": "F32", "shape": [0, 3], "data_offsets": [8, 8]}
    folder = write(tmp_path / "a", {"b": B, "none": empty, "__metadata__": {"format": "pt"}, "a": A}).parent
    (folder / "config.json").write_text("{}")
    merged = pma.merge([folder], tmp_path / "out")
    expected, made = load_file(folder / "model.safetensors"), load_file(merged / "model.safetensors")
    assert {k: v.tobytes() for k, v in made.items()} == {k: v.tobytes() for k, v in expected.items()}


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    for i in (1, 2):
        write(tmp_path / "a", {"a": A}, 8).rename(tmp_path / "a" / f"model-{i}.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "a" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="model-2.safetensors: tensor b is not in it"):
        open_source(tmp_path / "a")
    write(tmp_path / "a", {"a": A, "b": B}).rename(tmp_path / "a" / "model-2.safetensors")
    with pytest.raises(ValueError, match="model-2.safetensors: tensor a is in model-1.safetensors too"):
        open_source(tmp_path / "a")


@pytest.mark.parametrize("text", ["[]", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "{", "{}"])
def test_a_damaged_index_is_refused(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match="index.json: not readable as an index"):
        open_source(tmp_path)
