"""A checkpoint from elsewhere cannot make a merge read, or publish, files outside of its folder."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch.distributed import checkpoint as dcp

import pma
from pma.merge.formats import open_source


def model(folder: Path, name: str = "model.safetensors") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    save_file({"w": np.ones(4, np.float32)}, folder / name)
    (folder / "config.json").write_text("{}")
    return folder


def write_index(folder: Path, file: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": file}}))


@pytest.mark.parametrize("kind", ["above", "absolute"])
def test_an_index_that_leads_out_of_its_folder_is_refused(tmp_path, kind):
    model(tmp_path / "elsewhere")
    folder = tmp_path / "model"
    folder.mkdir()
    file = {"above": "../elsewhere/model.safetensors", "absolute": f"{tmp_path}/elsewhere/model.safetensors"}[kind]
    write_index(folder, file)
    with pytest.raises(ValueError, match=r"index.json: names .*elsewhere/model.safetensors, which lies outside"):
        open_source(folder)


def test_an_index_may_name_shards_in_folders_below(tmp_path):
    write_index(model(tmp_path, "shards/1.safetensors"), "shards/1.safetensors")
    assert list(open_source(tmp_path).tensors) == ["w"]


@pytest.mark.parametrize("place", ["../elsewhere/__0_0.distcp", "/etc/hostname"])
def test_a_distributed_checkpoint_that_leads_out_of_its_folder_is_refused(tmp_path, place):
    folder = tmp_path / "step-1"
    dcp.save({"w": torch.ones(4)}, checkpoint_id=folder, no_dist=True)
    with open(folder / ".metadata", "rb") as file:
        metadata = pickle.load(file)
    for info in metadata.storage_data.values():
        info.relative_path = place
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    (tmp_path / "elsewhere").mkdir()
    os.link(folder / "__0_0.distcp", tmp_path / "elsewhere" / "__0_0.distcp")
    with pytest.raises(ValueError, match=rf"\.metadata: names {place}, which lies outside"):
        open_source(folder)


def test_an_asset_that_is_a_link_to_another_file_is_not_published(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("key")
    first, newest = model(tmp_path / "a"), model(tmp_path / "b")
    (newest / "vocab.txt").symlink_to(secret)
    with pytest.raises(ValueError, match=r"vocab.txt: a link to .*secret, outside of its folder; put the file itself"):
        pma.merge([first, newest], output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_within_the_hub_s_cache_are_files_like_others(tmp_path):
    repository = tmp_path / "models--org--name"
    blobs, revision = repository / "blobs", repository / "snapshots" / "abc"
    model(blobs)
    (blobs / "vocab.txt").write_text("a b")
    revision.mkdir(parents=True)
    for path in blobs.iterdir():
        (revision / path.name).symlink_to(Path("../../blobs") / path.name)
    output = pma.merge([model(tmp_path / "a"), revision], output=tmp_path / "out")
    assert (output / "vocab.txt").read_text() == "a b" and not (output / "vocab.txt").is_symlink()
