"""Merges on disk: provenance, publication, policies, refusals."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

import pma
from pma.files import publish_folder
from pma.json_files import MANIFEST
from pma.merge import Merge, Options, Policy, average, disk, merge_all, sma, wma
from pma.merge.disk import preview
from pma.snapshot import content_of


def test_differing_names_shapes_missing_and_truncated_files_are_named(tmp_path, model_folder, nothing_left):
    good = model_folder(tmp_path / "good", {"w": torch.ones(4), "v": torch.ones(2)})
    shape = model_folder(tmp_path / "shape", {"w": torch.ones(5), "v": torch.ones(2)})
    name = model_folder(tmp_path / "name", {"w": torch.ones(4), "u": torch.ones(2)})
    kind = model_folder(tmp_path / "kind", {"w": torch.ones(4, dtype=torch.int64), "v": torch.ones(2)})
    cut = model_folder(tmp_path / "cut", {"w": torch.ones(4), "v": torch.ones(2)})
    whole = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(whole[:-5])
    bad = {shape: r"w has shape \(5,\)", name: "tensor u|tensor v", kind: "w is I64", cut: "truncated or damaged"}
    for folder, message in bad.items():
        with pytest.raises(ValueError, match=message):
            pma.merge([good, folder], tmp_path / "out")
    with pytest.raises(ValueError, match="no such folder"):
        pma.merge([good, tmp_path / "nowhere"], tmp_path / "out")
    assert nothing_left(tmp_path)


def test_a_snapshot_that_differs_from_its_manifest_is_refused(tmp_path, model_folder, nothing_left):
    folder = model_folder(tmp_path / "a", {"w": torch.ones(4)})
    (folder / MANIFEST).write_text(json.dumps({"content": "xxh3-128:0", "files": {}}))
    with pytest.raises(ValueError, match="not what its manifest.json says"):
        average([folder], [1.0])
    with pytest.raises(ValueError, match="not what its manifest.json says"):
        pma.merge([folder], tmp_path / "out")
    assert nothing_left(tmp_path)


def test_output_carries_provenance_config_and_format(tmp_path, model_folder):
    folders = [model_folder(tmp_path / str(i), {"w": torch.full((2,), float(i))}) for i in range(3)]
    (folders[-1] / "optimizer.pt").write_bytes(b"not to be copied")
    out = pma.merge(folders, tmp_path / "out", "wma", dtype="bfloat16")
    manifest = json.loads((out / MANIFEST).read_text())
    assert [source["weight"] for source in manifest["sources"]] == wma(3)
    assert [source["content"] for source in manifest["sources"]] == [content_of(folder) for folder in folders]
    assert manifest["content"] == content_of(out)
    assert manifest["equivalent_decay"] == pytest.approx([5 / 6, 1 / 2])
    assert load_file(out / "model.safetensors")["w"].dtype == torch.bfloat16
    assert json.loads((out / "config.json").read_text()) == {"model_type": "qwen3", "dtype": "bfloat16"}
    assert not (out / "optimizer.pt").exists()
    with pytest.raises(ValueError, match="exists already"):
        pma.merge(folders, out)
    again = pma.merge(folders, tmp_path / "again", "wma", dtype="bfloat16")
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {p.name: p.read_bytes() for p in again.iterdir()}


def test_many_merges_in_one_pass_are_those_made_alone(tmp_path, snapshots_of_a_run):
    folders = snapshots_of_a_run(tmp_path, 6)
    recipes = {"sma": sma(6), "wma": wma(6), "late": [0.0, 0.0, *sma(4)]}
    merges = [Merge(tuple(w), tmp_path / "many" / name, {}) for name, w in recipes.items()]
    merge_all(folders, merges, Options(dtype="newest", shard_size=300_000))
    for name, weights in recipes.items():
        alone = pma.merge(folders, tmp_path / name, weights=weights, dtype="newest")
        assert content_of(alone) == content_of(tmp_path / "many" / name)
    assert len(list((tmp_path / "many" / "sma").glob("model-*.safetensors"))) == 3  # two large tensors, the small ones
    late = json.loads((tmp_path / "many" / "late" / MANIFEST).read_text())
    assert len(late["sources"]) == 4


def test_nan_and_wild_snapshots_are_named_and_refused_or_warned_of(tmp_path, capsys, snapshots_of_a_run, nothing_left):
    folders = snapshots_of_a_run(tmp_path, 6)
    tensors = load_file(folders[2] / "model.safetensors")
    tensors["model.layers.1.mlp.weight"][7] = float("nan")
    save_file(tensors, folders[2] / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"/2: tensor model.layers.1.mlp.weight holds NaN.*suspicious=warn"):
        pma.merge(folders, tmp_path / "out")
    with pytest.raises(ValueError, match="holds NaN"):
        average(folders, sma(6))
    assert nothing_left(tmp_path)
    wild = {
        name: t * 9 if t.is_floating_point() else t for name, t in load_file(folders[0] / "model.safetensors").items()
    }
    save_file(wild, folders[2] / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"/2: \d+\.\d times as far from the mean"):
        pma.merge(folders, tmp_path / "out")
    with pytest.raises(ValueError, match=r"/2: \d+\.\d times as far from the mean"):
        pma.merge(folders, tmp_path / "out", diagnose=False)  # which is about a file, not about the policy
    with pytest.raises(ValueError, match=r"/2: \d+\.\d times as far from the mean"):
        average(folders, sma(6))
    assert average(folders, sma(6), Policy(suspicious="warn")).keys() == wild.keys()
    out = pma.merge(folders, tmp_path / "out", policy=Policy(suspicious="warn"))
    assert "/2: " in capsys.readouterr().err
    assert "/2: " in json.loads((out / MANIFEST).read_text())["warnings"][0]


def test_router_biases_are_averaged_or_the_newest(tmp_path, model_folder):
    name = "model.layers.0.mlp.gate.e_score_correction_bias"
    folders = [model_folder(tmp_path / str(i), {name: torch.tensor([float(i)]), "w": torch.ones(1)}) for i in range(3)]
    pma.merge(folders, tmp_path / "mean")
    pma.merge(folders, tmp_path / "newest", policy=Policy(router_bias="newest"))
    for kind, value in (("mean", 1.0), ("newest", 2.0)):
        assert load_file(tmp_path / kind / "model.safetensors")[name].item() == value
        assert json.loads((tmp_path / kind / MANIFEST).read_text())["policy"]["router_biases"] == [name]


def test_integers_that_differ_can_be_taken_from_the_newest(tmp_path, model_folder):
    folders = [model_folder(tmp_path / str(i), {"ids": torch.tensor([i]), "w": torch.ones(1)}) for i in range(2)]
    out = pma.merge(folders, tmp_path / "out", policy=Policy(integers="newest"))
    assert load_file(out / "model.safetensors")["ids"].item() == 1


def test_a_tied_head_that_only_some_hold_is_left_out(tmp_path, model_folder):
    with_head = model_folder(tmp_path / "a", {"w": torch.ones(2), "lm_head.weight": torch.ones(2)})
    without = model_folder(tmp_path / "b", {"w": torch.ones(2)})
    with pytest.raises(ValueError, match="lm_head.weight is missing"):
        pma.merge([with_head, without], tmp_path / "out")
    for folder in (with_head, without):
        (folder / "config.json").write_text('{"tie_word_embeddings": true}')
    out = pma.merge([with_head, without], tmp_path / "out")
    assert load_file(out / "model.safetensors").keys() == {"w"}


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, snapshots_of_a_run, nothing_left):
    folders = snapshots_of_a_run(tmp_path, 2)

    written = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if offset:
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        pma.merge(folders, tmp_path / "out")
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("format,most", [("safetensors", 4096), ("dcp", 8192)])
def test_a_full_disk_is_named_whatever_library_writes(tmp_path, model_folder, nothing_left, format, most):
    # torch writes a zip a tensor, which is longer than the tensors
    tensors = {f"w{k}": torch.ones(64) for k in range(20)}
    folder = model_folder(tmp_path / "a", tensors)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large.*out|out.*could not be written"):
            pma.merge([folder], tmp_path / "out", format=format)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert nothing_left(tmp_path)


def test_every_disk_must_have_room_for_what_goes_on_it(tmp_path, monkeypatch, snapshots_of_a_run):
    folders = snapshots_of_a_run(tmp_path, 2)
    size = 1_817_752  # bytes of a merge in fp32
    (tmp_path / "small").mkdir()
    monkeypatch.setattr(disk, "_device", lambda place: place.name == "small")
    free = {"small": int(2.5 * size)}
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=free.get(place.name, 10 * size)))
    large = [Merge((0.5, 0.5), tmp_path / "large" / str(i), {}) for i in range(5)]
    small = [Merge((0.5, 0.5), tmp_path / "small" / str(i), {}) for i in range(3)]
    (printed,) = preview(folders, [*large, *small[:2]], Options(dtype="float32"))
    assert f"writes 9.1 MB below {tmp_path}" in printed and f"writes 3.6 MB below {tmp_path}/small" in printed
    with pytest.raises(ValueError, match="small: the merges take 5.5 MB and 4.5 MB are free there; make room"):
        merge_all(folders, [*large, *small], Options(dtype="float32"))
    with pytest.raises(ValueError, match="small: the merges take 5.5 MB"):  # written as safetensors, then turned
        preview(folders, small[:2], Options(dtype="float32", format="dcp"))


# ---- numbers that no model holds ----


@pytest.mark.parametrize(
    "weights,accumulate",
    [
        ([math.nan, 1.0], "float32"),
        ([math.inf, 0.0], "float32"),
        ([1e39, 1.0], "float32"),
        ([1e308, 1e308], "float32"),
        ([1e308, 1e308], "float64"),
    ],
)
def test_weights_that_are_no_finite_numbers_are_refused(tmp_path, weights, accumulate, model_folder, nothing_left):
    folders = [model_folder(tmp_path / str(i), {"w": torch.ones(2)}) for i in range(2)]
    with pytest.raises(ValueError, match="weights .*(not all are finite|too large)"):
        pma.merge(folders, tmp_path / "out", weights=weights, accumulate=accumulate)
    with pytest.raises(ValueError, match="weights .*(not all are finite|too large)"):
        merge_all(folders, [Merge(tuple(weights), tmp_path / "out", {})], Options(accumulate=accumulate))
    assert nothing_left(tmp_path)


def test_positions_must_be_finite(tmp_path, model_folder, nothing_left):
    folders = [model_folder(tmp_path / str(i), {"w": torch.ones(2)}) for i in range(2)]
    for positions in ([1.0, math.nan], [1.0, math.inf]):
        with pytest.raises(ValueError, match="positions .*not all are finite"):
            pma.merge(folders, tmp_path / "out", "linear", positions=positions)
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(
    "value,options",
    [
        (1e5, {"dtype": "float16"}),
        (3.4e38, {"dtype": "bfloat16"}),
        (3.4e38, {"dtype": "float32", "weights": [1.0, 1.0]}),
        (3.4e38, {"dtype": "float32", "weights": [1.0, 1.0], "accumulate": "float64"}),
        (3.4e38, {"dtype": "bfloat16", "accumulate": "float64"}),
    ],
)
@pytest.mark.parametrize("suspicious", ["refuse", "warn"])
def test_what_the_storage_type_cannot_hold_is_refused(tmp_path, value, options, suspicious, model_folder, nothing_left):
    tensors = {"fine": torch.ones(3), "large": torch.ones(5000)}
    tensors["large"][4321] = value
    folders = [model_folder(tmp_path / str(i), tensors) for i in range(2)]
    with pytest.raises(ValueError, match="output=.*out: tensor large overflows.*dtype=float32"):
        pma.merge(folders, tmp_path / "out", policy=Policy(suspicious=suspicious), **options)
    assert nothing_left(tmp_path)
    tensors["large"][4321] = 6e4 if options["dtype"] == "float16" else 1.6e38  # large, but a number
    folders = [model_folder(tmp_path / f"fits-{i}", tensors) for i in range(2)]
    out = pma.merge(folders, tmp_path / "out", policy=Policy(suspicious=suspicious), **options)
    assert load_file(out / "model.safetensors")["large"].isfinite().all()


def test_nan_that_the_policy_lets_pass_is_no_overflow_and_the_json_stays_standard(tmp_path, capsys, model_folder):
    values = torch.ones(5000)
    values[7] = math.nan
    folders = [model_folder(tmp_path / str(i), {"w": values if i else torch.ones(5000)}) for i in range(4)]
    out = pma.merge(folders, tmp_path / "out", dtype="float16", policy=Policy(suspicious="warn"))
    assert load_file(out / "model.safetensors")["w"].isnan().sum() == 1

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for name in (MANIFEST, "diagnostics.json"):
        json.loads((out / name).read_text(), parse_constant=refuse)
    values[8] = 1e5  # beside the NaN, in all sources that hold it
    folders = [model_folder(tmp_path / f"large-{i}", {"w": values}) for i in range(2)]
    with pytest.raises(ValueError, match="tensor w overflows"):
        pma.merge(folders, tmp_path / "other", dtype="float16", policy=Policy(suspicious="warn"))


# ---- one output, one merge ----


def test_a_merge_neither_waits_for_another_nor_replaces_its_result(tmp_path, model_folder):
    folders = [model_folder(tmp_path / str(i), {"w": torch.ones(2)}) for i in range(2)]
    with publish_folder(tmp_path / "out", replace=False) as aside:
        (aside / "whole").write_text("")
        with pytest.raises(ValueError, match="out: another process is writing it"):
            pma.merge(folders, tmp_path / "out")
        assert aside.is_dir()
    assert (tmp_path / "out" / "whole").exists()
    with pytest.raises(ValueError, match="out: exists already"):
        pma.merge(folders, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["whole"]


def test_a_merge_is_stored_as_the_newest_source_is(tmp_path, model_folder):
    one = model_folder(tmp_path / "one", {"w": torch.full((2,), 1.0)})
    two = model_folder(tmp_path / "two", {"w": torch.full((2,), 2.0, dtype=torch.bfloat16)})
    for sources, dtype in (((one, two), "bfloat16"), ((two, one), "float32")):
        out = pma.merge(sources, tmp_path / dtype)
        assert load_file(out / "model.safetensors")["w"].dtype == getattr(torch, dtype)
        assert json.loads((out / MANIFEST).read_text())["dtype"] == dtype
        assert json.loads((out / "config.json").read_text())["dtype"] == dtype
    same = pma.merge([two, one], tmp_path / "same", dtype="float32")
    assert {p.name: p.read_bytes() for p in same.iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "float32").iterdir()
    }
