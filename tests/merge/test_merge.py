"""Merging: weights against their definitions, averages against float64 numpy, windows, provenance, refusals."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import pma
from pma.files import MANIFEST
from pma.layout import window
from pma.merge import (
    Merge,
    Options,
    Policy,
    average,
    decay,
    ema,
    equivalent_decay,
    explicit,
    kernels,
    merge_all,
    method_weights,
    sma,
    stream,
    wma,
)
from pma.merge.engine import opened
from pma.merge.stream import Pass, Seen, Sum
from pma.snapshot import content_of


def model_folder(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@given(n=st.integers(1, 40), alpha=st.floats(0.01, 1.0))
def test_ema_weights_are_the_papers_recursion(n, alpha):
    models = np.eye(n)  # row i is "model i": the recursion's result is then its vector of weights
    recursive = models[0]
    for model in models[1:]:
        recursive = alpha * model + (1 - alpha) * recursive
    np.testing.assert_allclose(ema(n, alpha), recursive, rtol=1e-12, atol=1e-15)


@given(n=st.integers(1, 200))
def test_sma_and_wma_weights(n):
    np.testing.assert_allclose(sma(n), np.full(n, 1 / n))
    ranks = np.arange(1, n + 1)
    np.testing.assert_allclose(wma(n), ranks / ranks.sum())


@pytest.mark.parametrize("method,alpha", [("ema", None), ("sma", 0.1), ("ema", 0.0), ("ema", 1.5), ("mean", None)])
def test_impossible_methods_are_refused(method, alpha):
    with pytest.raises(ValueError, match="alpha|method"):
        method_weights(method, 3, alpha)


def test_explicit_weights_must_match_in_number():
    with pytest.raises(ValueError, match="2 given for 3"):
        explicit([0.5, 0.5], 3)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_average_equals_float64_numpy(tmp_path_factory, data):
    shapes = data.draw(st.lists(st.lists(st.integers(1, 7), min_size=0, max_size=3), min_size=1, max_size=4))
    dtypes = data.draw(
        st.lists(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]), min_size=4, max_size=4)
    )
    n = data.draw(st.integers(1, 6))
    weights = data.draw(st.lists(st.floats(-1, 1), min_size=n, max_size=n))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    folders, exact = [], {}
    root = tmp_path_factory.mktemp("average")
    for i in range(n):
        tensors = {
            f"t{k}": torch.randn(shape, generator=generator).to(dtype)
            for k, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=False))
        }
        folders.append(model_folder(root / str(i), tensors))
        for name, tensor in tensors.items():
            exact[name] = exact.get(name, 0) + weights[i] * tensor.to(torch.float64).numpy()
    merged = average(folders, weights)
    assert merged.keys() == exact.keys()
    for name, value in exact.items():
        assert merged[name].dtype == torch.float32
        np.testing.assert_allclose(merged[name].numpy(), value, rtol=1e-5, atol=1e-5)


def test_merging_one_model_alone_or_equal_models_changes_no_bit(tmp_path):
    tensors = {"w": torch.randn(5, 3)}
    folders = [model_folder(tmp_path / str(i), tensors) for i in range(4)]
    assert torch.equal(average(folders[:1], [1.0])["w"], tensors["w"])
    assert torch.equal(average(folders, sma(4))["w"], tensors["w"])  # quarters are exact


def test_bf16_is_summed_in_fp32(tmp_path):
    # In bf16 256 + 1 = 256: a sum kept in the storage type would lose the small models altogether.
    values = [256.0, 1.0, 1.0, 1.0]
    folders = [
        model_folder(tmp_path / str(i), {"w": torch.tensor([v], dtype=torch.bfloat16)}) for i, v in enumerate(values)
    ]
    assert average(folders, [1.0] * 4)["w"].item() == 259.0


def test_equal_integers_are_copied_and_unequal_ones_refused(tmp_path):
    same = [model_folder(tmp_path / f"s{i}", {"ids": torch.arange(3), "w": torch.ones(1)}) for i in range(2)]
    assert torch.equal(average(same, sma(2))["ids"], torch.arange(3))
    other = model_folder(tmp_path / "other", {"ids": torch.arange(3) + 1, "w": torch.ones(1)})
    with pytest.raises(ValueError, match="ids"):
        average([same[0], other], sma(2))


def test_differing_names_shapes_missing_and_truncated_files_are_named(tmp_path):
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


def nothing_left(folder: Path) -> bool:
    return not (folder / "out").exists() and not list(folder.glob(".out*"))


def test_a_snapshot_that_differs_from_its_manifest_is_refused(tmp_path):
    folder = model_folder(tmp_path / "a", {"w": torch.ones(4)})
    (folder / MANIFEST).write_text(json.dumps({"content": "xxh3-128:0", "files": {}}))
    with pytest.raises(ValueError, match="not what its manifest.json says"):
        average([folder], [1.0])
    with pytest.raises(ValueError, match="not what its manifest.json says"):
        pma.merge([folder], tmp_path / "out")
    assert nothing_left(tmp_path)


def test_output_carries_provenance_config_and_format(tmp_path):
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


# ---- the pass: the same bits however it is cut ----


def snapshots_of_a_run(root: Path, n: int) -> list[Path]:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(700, 513, generator=generator)
    folders = []
    for i in range(n):
        noise = 0.1 * torch.randn(700, 513, generator=generator)
        tensors = {
            "model.layers.0.mlp.weight": (base + noise).bfloat16(),
            "model.layers.1.mlp.weight": torch.randn(33, generator=generator),
            "model.embed.weight": torch.randn(900, 1001, generator=generator).half(),
            "ids": torch.arange(4),
        }
        folders.append(model_folder(root / str(i), tensors))
    return folders


def run_pass(folders: list[Path], weights: list[list[float]], **options) -> tuple[list[dict], Seen]:
    with opened(folders) as sources:
        infos = sources[-1].tensors
        made = [{name: np.zeros(info.count * 8, np.uint8) for name, info in infos.items()} for _ in weights]

        def write(i: int, name: str, start: int, values: np.ndarray) -> None:
            at = start * values.itemsize
            made[i][name][at : at + values.nbytes] = values.view(np.uint8)

        work = Pass(sources, [Sum(tuple(w), "F32") for w in weights], write, **options)
        return made, work.summary(work.run())


@pytest.mark.parametrize("accumulate,whole", [("float32", stream.WHOLE), ("float64", stream.WHOLE), ("float32", 2**15)])
def test_bits_depend_on_snapshots_and_weights_alone(tmp_path, monkeypatch, accumulate, whole):
    monkeypatch.setattr(stream, "WHOLE", whole)
    folders = snapshots_of_a_run(tmp_path, 10)
    weights = [[float(x) for x in np.random.default_rng(i).normal(size=10)] for i in range(6)]
    whole, seen = run_pass(folders, weights[:1], accumulate=accumulate)
    for options in ({"threads": 2, "memory": 1}, {"threads": 2, "memory": 2**23}, {"threads": 3, "memory": 2**24}):
        cut, also = run_pass(folders, weights[:1], accumulate=accumulate, **options)
        assert all(np.array_equal(whole[0][name], cut[0][name]) for name in whole[0])
        assert seen.sum_hashes == also.sum_hashes and seen.hashes == also.hashes
        assert all(np.array_equal(seen.grams[layer], also.grams[layer]) for layer in seen.grams)
    many, also = run_pass(folders, weights, accumulate=accumulate, threads=2)
    assert all(np.array_equal(whole[0][name], many[0][name]) for name in whole[0])
    alone, _ = run_pass(folders[4:], [weights[1][4:]], accumulate=accumulate)
    padded, _ = run_pass(folders, [weights[0], [0.0] * 4 + weights[1][4:]], accumulate=accumulate)
    assert all(np.array_equal(alone[0][name], padded[1][name]) for name in alone[0])


def test_the_sum_is_the_fused_chain_from_the_oldest_on(tmp_path):
    folders = snapshots_of_a_run(tmp_path, 5)
    weights = [0.3, -0.2, 0.5, 0.15, 0.25]
    merged = average(folders, weights)
    tensors = [load_file(folder / "model.safetensors") for folder in folders]
    for name, value in merged.items():
        if value.is_floating_point():
            chain = tensors[0][name].double() * np.float32(weights[0])
            for w, t in zip(weights[1:], tensors[1:], strict=True):
                chain = (chain.float().double() + t[name].double() * float(np.float32(w))).float().double()
            assert torch.equal(value, chain.float())  # a product of two fp32 is exact in float64: one rounding a step


@given(values=st.lists(st.floats(width=32), min_size=1, max_size=50), accumulate=st.sampled_from(["<f4", "<f8"]))
def test_bf16_is_rounded_as_torch_does(values, accumulate):
    array = np.array(values, accumulate)[None]
    expected = torch.from_numpy(array[0]).float().bfloat16()
    none, stored = np.empty((1, 0), np.uint16), np.empty(array.shape, np.uint16)
    samples, weights = np.empty((0, 1, stream.UNIT), accumulate), np.ones((1, 1), accumulate)
    kernels.blend(array, none, weights, np.empty((1, 0), accumulate), stored, samples, 0, 0)
    ours = torch.from_numpy(stored[0].view(np.int16)).view(torch.bfloat16)
    assert torch.equal(ours.isnan(), expected.isnan())
    assert torch.equal(ours[~ours.isnan()], expected[~expected.isnan()])


@pytest.mark.parametrize("accumulate", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("at", [0, 255, 256, 3000])
def test_nan_and_infinity_are_seen_wherever_they_are(dtype, accumulate, at):
    values = torch.randn(3001, generator=torch.Generator().manual_seed(at)).to(dtype)
    values[at - 1] = torch.finfo(torch.float32 if dtype == torch.float64 else dtype).max  # large, but a number
    bf16, none = dtype == torch.bfloat16, np.empty((1, 0), accumulate)

    def add() -> bool:
        bits = values.view(torch.int16).numpy().view(np.uint16)[None] if bf16 else np.empty((1, 0), np.uint16)
        numbers = none if bf16 else values.numpy().astype(accumulate)[None]
        sums, samples = np.empty((2, 3001), accumulate), np.empty((0, 1, stream.UNIT), accumulate)
        weights = np.array([[0.5], [0]], accumulate)
        return kernels.blend(numbers, bits, weights, sums, np.empty((2, 0), np.uint16), samples, 0, 0)

    assert add()
    for wild in (float("nan"), float("inf"), -float("inf")):
        values[at] = wild
        assert not add()


def test_many_merges_in_one_pass_are_those_made_alone(tmp_path):
    folders = snapshots_of_a_run(tmp_path, 6)
    recipes = {"sma": sma(6), "wma": wma(6), "late": [0.0, 0.0, *sma(4)]}
    merges = [Merge(tuple(w), tmp_path / "many" / name, {}) for name, w in recipes.items()]
    merge_all(folders, merges, Options(dtype="newest", shard_size=1_000_000))
    for name, weights in recipes.items():
        alone = pma.merge(folders, tmp_path / name, weights=weights, dtype="newest")
        assert content_of(alone) == content_of(tmp_path / "many" / name)
    assert len(list((tmp_path / "many" / "sma").glob("model-*.safetensors"))) == 3  # two large tensors, the small ones
    late = json.loads((tmp_path / "many" / "late" / MANIFEST).read_text())
    assert len(late["sources"]) == 4


def test_the_command_makes_the_bytes_of_the_call(tmp_path):
    folders = snapshots_of_a_run(tmp_path, 3)
    called = pma.merge(folders, tmp_path / "called", "wma", threads=2)  # threads, for torch is at work here
    sources = f"sources=[{','.join(map(str, folders))}]"
    command = [sys.executable, "-m", "pma.merge", sources, "method=wma", "threads=2", f"output={tmp_path}/made"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # processes
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("model.safetensors", "diagnostics.json"):
        assert (called / name).read_bytes() == (tmp_path / "made" / name).read_bytes()
    tensors = load_file(folders[1] / "model.safetensors")
    tensors["model.layers.1.mlp.weight"][3] = float("inf")
    save_file(tensors, folders[1] / "model.safetensors", metadata={"format": "pt"})
    done = subprocess.run([*command[:-1], f"output={tmp_path}/none"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "/1: tensor model.layers.1.mlp.weight holds NaN or infinity" in done.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_of_torchrun_make_the_same_bytes(tmp_path, processes):
    folders = snapshots_of_a_run(tmp_path, 3)
    alone = pma.merge(folders, tmp_path / "alone")
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--master_port=0"]
    command += ["--standalone", "-m", "pma.merge", f"sources=[{','.join(map(str, folders))}]", "method=sma"]
    done = subprocess.run([*command, f"output={tmp_path}/shared"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("model.safetensors", "diagnostics.json"):
        assert (alone / name).read_bytes() == (tmp_path / "shared" / name).read_bytes()
    assert json.loads((tmp_path / "shared" / MANIFEST).read_text())["content"] == content_of(alone)


# ---- what is refused, and what is not ----


def test_nan_and_wild_snapshots_are_named_and_refused_or_warned_of(tmp_path, capsys):
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
    out = pma.merge(folders, tmp_path / "out", policy=Policy(suspicious="warn"))
    assert "/2: " in capsys.readouterr().err
    assert "/2: " in json.loads((out / MANIFEST).read_text())["warnings"][0]


def test_a_straight_trajectory_has_no_outlier(tmp_path):
    folders = [model_folder(tmp_path / str(i), {"w": torch.arange(50.0) * i}) for i in range(12)]
    assert pma.merge(folders, tmp_path / "out").is_dir()


def test_router_biases_are_averaged_or_the_newest(tmp_path):
    name = "model.layers.0.mlp.gate.e_score_correction_bias"
    folders = [model_folder(tmp_path / str(i), {name: torch.tensor([float(i)]), "w": torch.ones(1)}) for i in range(3)]
    pma.merge(folders, tmp_path / "mean")
    pma.merge(folders, tmp_path / "newest", policy=Policy(router_bias="newest"))
    for kind, value in (("mean", 1.0), ("newest", 2.0)):
        assert load_file(tmp_path / kind / "model.safetensors")[name].item() == value
        assert json.loads((tmp_path / kind / MANIFEST).read_text())["policy"]["router_biases"] == [name]


def test_integers_that_differ_can_be_taken_from_the_newest(tmp_path):
    folders = [model_folder(tmp_path / str(i), {"ids": torch.tensor([i]), "w": torch.ones(1)}) for i in range(2)]
    out = pma.merge(folders, tmp_path / "out", policy=Policy(integers="newest"))
    assert load_file(out / "model.safetensors")["ids"].item() == 1


def test_a_tied_head_that_only_some_hold_is_left_out(tmp_path):
    with_head = model_folder(tmp_path / "a", {"w": torch.ones(2), "lm_head.weight": torch.ones(2)})
    without = model_folder(tmp_path / "b", {"w": torch.ones(2)})
    with pytest.raises(ValueError, match="lm_head.weight is missing"):
        pma.merge([with_head, without], tmp_path / "out")
    for folder in (with_head, without):
        (folder / "config.json").write_text('{"tie_word_embeddings": true}')
    out = pma.merge([with_head, without], tmp_path / "out")
    assert load_file(out / "model.safetensors").keys() == {"w"}


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
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
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=10))
    with pytest.raises(ValueError, match="are free there"):
        pma.merge(folders, tmp_path / "out")


def test_diagnostics_are_those_of_float64_numpy(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "WHOLE", 2**20)
    folders = snapshots_of_a_run(tmp_path, 4)
    out = pma.merge(folders, tmp_path / "out")
    found = json.loads((out / "diagnostics.json").read_text())
    loaded = [load_file(folder / "model.safetensors") for folder in folders]
    names = [name for name, t in loaded[0].items() if t.is_floating_point()]
    vectors = np.stack([np.concatenate([t[n].double().numpy().ravel() for n in names]) for t in loaded])
    expected = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    np.testing.assert_allclose(found["distances"], expected, rtol=1e-4, atol=1e-6 * expected.max())
    np.testing.assert_allclose(found["norms"], np.linalg.norm(vectors, axis=1), rtol=1e-4)
    steps = np.diff(vectors, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    cosines = (steps[1:] * steps[:-1]).sum(1) / (lengths[1:] * lengths[:-1])
    np.testing.assert_allclose(found["update_cosines"], cosines, atol=1e-4)
    layer = np.stack([t["model.layers.0.mlp.weight"].double().numpy() for t in loaded])
    assert found["layer_variance"]["layers.0"] == pytest.approx(layer.var(axis=0).mean(), rel=1e-3)
    ratio = np.linalg.norm(vectors.mean(0)) / np.linalg.norm(vectors[-1])
    assert found["mean_norm_ratio"] == pytest.approx(ratio, rel=1e-4)


def test_of_a_large_tensor_every_eighth_unit_stands_for_all(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "WHOLE", 2**15)
    folders = snapshots_of_a_run(tmp_path, 4)
    found = json.loads((pma.merge(folders, tmp_path / "out") / "diagnostics.json").read_text())
    loaded = [load_file(folder / "model.safetensors") for folder in folders]
    squares = 0.0
    for name, tensor in loaded[1].items():
        if tensor.is_floating_point():
            flat = (tensor.double() - loaded[0][name].double()).reshape(-1)
            units = flat.split(stream.UNIT)[:: stream.SAMPLED] if flat.numel() > 2**15 else [flat]
            seen = torch.cat(units)
            squares += float(seen.square().sum()) * flat.numel() / seen.numel()
    assert found["distances"][0][1] == pytest.approx(squares**0.5, rel=1e-4)


# ---- weights of a decay ----


@given(n=st.integers(2, 30))
def test_linear_decay_is_sma_and_the_decay_of_weights_is_what_made_them(n):
    np.testing.assert_allclose(method_weights("linear", n), sma(n), atol=1e-12)
    for method in ("linear", "cosine", "1-sqrt"):
        weights = method_weights(method, n)
        assert sum(weights) == pytest.approx(1) and min(weights) >= 0
        x = np.arange(1, n) / n
        shape = {"linear": 1 - x, "cosine": (1 + np.cos(np.pi * x)) / 2, "1-sqrt": 1 - np.sqrt(x)}[method]
        np.testing.assert_allclose(equivalent_decay(weights), shape, atol=1e-12)


def test_a_decay_over_uneven_spacing_replays_the_updates():
    # Snapshots of a run whose update between tokens a and b is the vector (b - a) e_k; the merge must be the first
    # snapshot plus each update times the factor at its end.
    tokens = [0, 1, 3, 4, 8]
    weights = decay(lambda x: 1 - x, tokens)
    updates = np.diag(np.diff(tokens)).astype(float)
    snapshots = np.vstack([np.zeros(4), np.cumsum(updates, axis=0)])
    factors = 1 - np.array(tokens[1:]) / 10  # 8 tokens, and one mean interval of 2
    np.testing.assert_allclose(np.array(weights) @ snapshots, factors @ updates)
    with pytest.raises(ValueError, match="ascending"):
        decay(lambda x: 1 - x, [0, 2, 1])
    with pytest.raises(ValueError, match="rises"):
        decay(lambda x: x, tokens)


@given(n=st.integers(1, 12), interval=st.integers(1, 9), end=st.integers(0, 150))
def test_a_window_is_exact_or_refused(n, interval, end):
    have = range(0, 101, 2)
    wanted = [end - (n - 1 - i) * interval for i in range(n)]
    if all(tokens in have for tokens in wanted):
        assert window(have, n, interval, end) == wanted
    else:
        with pytest.raises(ValueError, match="no snapshot at"):
            window(have, n, interval, end)


def test_a_refused_window_names_the_nearest_that_can_be_filled():
    with pytest.raises(ValueError, match="nearest end that n=3 interval=10 can fill is end=90"):
        window(range(0, 100, 10), 3, 10, 100)
    with pytest.raises(ValueError, match="at most n=10 can be filled"):
        window(range(0, 100, 10), 20, 10, 90)
