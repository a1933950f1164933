"""Checkpoints that Megatron-Core 0.16.1 and 0.15.3 and OLMo-core 3.0.0 wrote, read without their packages.

tests/interop/check.py lets the writers' own code write them, and packs them for here.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import pma
from pma.merge.formats import open_source
from pma.merge.formats.dcp_metadata import MetadataUnpickler

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def unpacked(tmp_path, request) -> tuple[Path, dict[str, torch.Tensor]]:
    """The checkpoint of a writer, and the tensors that the writer's own code reads from it."""
    with tarfile.open(FIXTURES / f"{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "checkpoint", torch.load(tmp_path / "expected.pt", weights_only=True)


@pytest.mark.parametrize("unpacked", ["megatron", "megatron_0_15", "olmo"], indirect=True)
def test_a_checkpoint_of_a_writer_is_read_without_its_package(tmp_path, unpacked):
    checkpoint, expected = unpacked
    out = pma.merge([checkpoint, checkpoint], tmp_path / "out", dtype="newest")
    merged = load_file(out / "model.safetensors")
    assert merged.keys() == expected.keys()
    assert all(torch.equal(merged[name], tensor) for name, tensor in expected.items())
    assert not (out / "metadata.json").exists() and not (out / ".metadata.json").exists()


@pytest.mark.parametrize(
    "unpacked,names",
    [("megatron", {"SavePlan"}), ("megatron_0_15", {"MCoreMetadata", "MCoreSavePlan"}), ("olmo", {"_StorageInfo"})],
    indirect=["unpacked"],
)
def test_the_writers_metadata_hold_classes_of_their_own(unpacked, names, monkeypatch):
    checkpoint, _ = unpacked
    seen, find = set(), MetadataUnpickler.find_class

    def remember(self: MetadataUnpickler, module: str, name: str) -> object:
        seen.add(name)
        return find(self, module, name)

    monkeypatch.setattr(MetadataUnpickler, "find_class", remember)
    open_source(checkpoint)
    assert names <= seen
