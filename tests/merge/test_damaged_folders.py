"""What lies beside the weights, damaged: one line that names the file, before anything is merged."""

from __future__ import annotations

import json

import pytest
import torch

import pma

DAMAGED = ["[]", "null", "7", '{"a": ', "", b"\xff\xfe"]


def write(path, content: str | bytes) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("content", DAMAGED)
@pytest.mark.parametrize("dtype", ["newest", "bfloat16"])
def test_a_damaged_config_is_refused_by_name(tmp_path, model_folder, nothing_left, content, dtype):
    folders = [model_folder(tmp_path / name, {"w": torch.ones(2)}) for name in "ab"]
    write(folders[1] / "config.json", content)
    with pytest.raises(ValueError, match=r"b/config.json: (not readable as JSON|a JSON object should)") as error:
        pma.merge(folders, tmp_path / "out", dtype=dtype)
    assert "\n" not in str(error.value) and nothing_left(tmp_path)


def test_a_damaged_config_that_would_say_whether_a_head_is_tied_is_refused_by_name(tmp_path, model_folder):
    folders = [model_folder(tmp_path / "a", {"w": torch.ones(2)})]
    folders += [model_folder(tmp_path / "b", {"w": torch.ones(2), "lm_head.weight": torch.ones(2)})]
    write(folders[0] / "config.json", "[]")
    with pytest.raises(ValueError, match="a/config.json: a JSON object should stand there"):
        pma.merge(folders, tmp_path / "out")


def test_config_and_tokenizer_may_lie_in_a_folder_given_as_text(tmp_path, model_folder):
    folders = [model_folder(tmp_path / name, {"w": torch.ones(2)}) for name in "abc"]
    (folders[2] / "vocab.txt").write_text("a b")
    write(folders[1] / "config.json", "[]")  # which is not asked for
    out = pma.merge([str(folder) for folder in folders[:2]], str(tmp_path / "out"), assets=str(folders[2]))
    assert (out / "vocab.txt").read_text() == "a b"
    assert json.loads((out / "config.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize("corpus", [7, [], {"a": 1}, None])
def test_an_odd_corpus_in_a_manifest_is_not_passed_on(tmp_path, model_folder, corpus):
    folders = [model_folder(tmp_path / name, {"w": torch.ones(2)}) for name in "ab"]
    write(folders[1] / "manifest.json", json.dumps({"corpus": corpus}))
    out = pma.merge(folders, tmp_path / "out")
    assert "corpus" not in json.loads((out / "manifest.json").read_text())
