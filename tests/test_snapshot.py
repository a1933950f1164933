"""A published model folder is verified file by file."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

import pma
from pma.snapshot import content_of, verify


def test_every_file_is_checked_against_the_manifest(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    save_file({"w": np.arange(6, dtype=np.float32)}, source / "model.safetensors")
    (source / "config.json").write_text("{}")
    folder = pma.merge([source], tmp_path / "out")
    assert verify(folder)["content"] == content_of(source)
    config = (folder / "config.json").read_bytes()
    (folder / "config.json").write_bytes(config + b" ")
    with pytest.raises(ValueError, match="config.json: truncated or changed"):
        verify(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="config.json: missing"):
        verify(folder)
    (folder / "config.json").write_bytes(config)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match="its weights are not those of its manifest"):
        verify(folder)
    with pytest.raises(ValueError, match="no manifest.json there"):
        verify(source)
