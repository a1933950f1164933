"""Files of torch.save and torch distributed checkpoints whose tensors are none: one line that names the file."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import checkpoint as dcp

import pma
from pma.merge.formats import open_source

W = torch.arange(12.0).reshape(4, 3)
OTHER = {
    "sparse": W.to_sparse(),
    "meta": torch.empty(4, 3, device="meta"),
    "quantized": torch.quantize_per_tensor(W, 0.1, 0, torch.quint8),
}


@pytest.mark.parametrize("value", OTHER.values(), ids=OTHER)
def test_a_tensor_without_plain_values_is_refused(tmp_path, value):
    torch.save({"w": value}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model.pt: (w is a sparse, quantized or empty|not a whole state dict)"):
        open_source(tmp_path / "model.pt")


@pytest.mark.parametrize("root", [[W], W, 7, None, "text", {}, (W,), {"a": W, "b": 7}])
def test_a_root_that_is_no_state_dict_is_refused(tmp_path, root):
    torch.save(root, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pytorch_model.bin: .*state dict") as error:
        open_source(tmp_path)
    assert "\n" not in str(error.value)


def checkpoint(folder: Path) -> Path:
    dcp.save({"w": W, "b": torch.ones(2)}, checkpoint_id=folder, no_dist=True)
    return folder


def test_a_metadata_file_that_is_whole_is_read(tmp_path):
    out = pma.merge([checkpoint(tmp_path / "step-1")], tmp_path / "out")
    assert torch.equal(load_file(out / "model.safetensors")["w"], W)


def kept(contents):
    return contents.state_dict_metadata["w"]


def place(contents):
    return next(info for index, info in contents.storage_data.items() if index.fqn == "w")


DAMAGE = {
    "no size": lambda c: setattr(kept(c), "size", None),
    "a size below 0": lambda c: setattr(kept(c), "size", (-4, -3)),
    "another size": lambda c: setattr(kept(c), "size", torch.Size([4, 4])),
    "no pieces": lambda c: setattr(kept(c), "chunks", None),
    "a piece outside": lambda c: setattr(kept(c).chunks[0], "offsets", (1, 0)),
    "a piece of nothing": lambda c: setattr(kept(c).chunks[0], "sizes", ()),
    "no name": lambda c: c.state_dict_metadata.update({7: c.state_dict_metadata.pop("w")}),
    "no offset": lambda c: setattr(place(c), "offset", None),
    "an offset below 0": lambda c: setattr(place(c), "offset", -1),
    "an offset beyond the end": lambda c: setattr(place(c), "offset", 2**63),
    "no length": lambda c: setattr(place(c), "length", 0),
    "no place": lambda c: c.storage_data.update({7: place(c)}),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_metadata_is_refused(tmp_path, nothing_left, damage):
    folder = checkpoint(tmp_path / "step-1")
    contents = pickle.loads((folder / ".metadata").read_bytes())
    damage(contents)
    (folder / ".metadata").write_bytes(pickle.dumps(contents))
    with pytest.raises(ValueError, match="step-1") as error:
        pma.merge([folder], tmp_path / "out")
    assert "\n" not in str(error.value) and nothing_left(tmp_path)


def test_pieces_that_overlap_are_refused_though_their_sizes_add_up(tmp_path):
    """What no piece holds would be whatever lay in memory."""
    folder = checkpoint(tmp_path / "step-1")
    contents = pickle.loads((folder / ".metadata").read_bytes())
    first = kept(contents).chunks[0]
    index, info = next((index, info) for index, info in contents.storage_data.items() if index.fqn == "w")
    kept(contents).chunks = [type(first)(torch.Size(at), torch.Size([2, 3])) for at in ([0, 0], [1, 0])]
    for at in ([0, 0], [1, 0]):
        contents.storage_data[type(index)("w", torch.Size(at))] = info
    (folder / ".metadata").write_bytes(pickle.dumps(contents))
    with pytest.raises(ValueError, match="step-1: tensor w is not whole in it"):
        open_source(folder)
