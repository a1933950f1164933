"""Merging against mergekit, against reading the same bytes, and against ourselves one merge at a time.

    python benchmarks/merge.py                  # about 12 minutes on 2 cores, 20 GB of disk, files in the page cache
    python benchmarks/merge.py --cases sma      # sma | recipes | memory | large

Whole processes, wall-clock and peak memory, in rounds of one run each, page cache warm. mergekit is installed for this
in a throw-away environment, pinned; the outputs are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

MERGEKIT = "mergekit==0.1.5"
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 29824,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 20,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
}


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """Tensors of a Qwen3 model of CONFIG's width."""
    d, f, q, kv = 1024, CONFIG["intermediate_size"], 16 * 64, 8 * 64
    tensors = {"model.embed_tokens.weight": (CONFIG["vocab_size"], d), "model.norm.weight": (d,)}
    for i in range(layers):
        block = {
            "self_attn.q_proj": (q, d),
            "self_attn.k_proj": (kv, d),
            "self_attn.v_proj": (kv, d),
            "self_attn.o_proj": (d, q),
            "self_attn.q_norm": (64,),
            "self_attn.k_norm": (64,),
            "mlp.gate_proj": (f, d),
            "mlp.up_proj": (f, d),
            "mlp.down_proj": (d, f),
            "input_layernorm": (d,),
            "post_attention_layernorm": (d,),
        }
        tensors |= {f"model.layers.{i}.{name}.weight": shape for name, shape in block.items()}
    return tensors


def make(folder: Path, layers: int, seed: int, shard_layers: int | None = None) -> Path:
    """A model folder in bf16: weights near a common point, as snapshots of one run are."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}))
    base, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, shape in shapes(layers).items():
        noise = torch.randn(shape, generator=own).mul_(0.002)
        tensors[name] = torch.randn(shape, generator=base).mul_(0.02).add_(noise).bfloat16()
    if shard_layers is None:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    weight_map, names = {}, list(tensors)
    per = 11 * shard_layers
    for k in range(0, len(names), per):
        file = f"model-{k // per + 1:05d}.safetensors"
        save_file({n: tensors[n] for n in names[k : k + per]}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names[k : k + per], file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def linked(folder: Path, source: Path) -> Path:
    """The same model under another name, without another copy."""
    folder.mkdir(parents=True)
    for path in source.iterdir():
        os.link(path, folder / path.name)
    return folder


# A small process of its own starts each command: on Linux a child's peak memory includes its parent's at the start.
_STARTER = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
done = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
json.dump([done.returncode, seconds, peak, done.stderr.decode()[-2000:]], open(sys.argv[1], "w"))
"""


def run(command: list[str]) -> tuple[float, float]:
    """Wall-clock in seconds and peak resident memory in bytes of a process."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run([sys.executable, "-c", _STARTER, str(report), *command], check=True)
        status, seconds, peak, text = json.loads(report.read_text())
    if status:
        raise RuntimeError(f"{' '.join(command)[:200]}: {text}")
    return seconds, peak


def ours(sources: list[Path], output: Path, *options: str) -> tuple[float, float]:
    """One call of our command."""
    names = "sources=[" + ",".join(map(str, sources)) + "]"
    return run([sys.executable, "-m", "pma.merge", names, f"output={output}", *options])


def flush(*folders: Path) -> None:
    """Remove outputs and wait for the disk, so that one run's writing is not another's."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    os.sync()


def make_room() -> None:
    """Empty the page cache of everybody's files, so that 8.5 GB of outputs need not push them out while they are
    written: that is slow, and sixteen outputs at once meet it where sixteen one after the other do not."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("1\n")
    except OSError as error:
        print(f"  the page cache stays as it is ({error}): with less than 15 GB free, times are the kernel's, not ours")


def warm(models: list[Path]) -> None:
    """Have models in the page cache, whatever was written meanwhile."""
    run(["sh", "-c", f"cat {' '.join(f'{model}/*.safetensors' for model in models)} > /dev/null"])


def middle(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def install_mergekit(folder: Path) -> list[str]:
    """mergekit-yaml in an environment of its own that borrows our packages."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    site = next((folder / "lib").glob("python3*")) / "site-packages"
    (site / "borrowed.pth").write_text(next(p for p in sys.path if p.endswith("site-packages")) + "\n")
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", MERGEKIT], check=True)
    return [str(folder / "bin" / "mergekit-yaml")]


def case_sma(work: Path, models: list[Path], rounds: int) -> None:
    """SMA of ten models against mergekit and against cat."""
    command = install_mergekit(work / "venv")
    config = work / "mergekit.yaml"
    parts = "".join(f"  - model: {m}\n    parameters: {{weight: 0.1}}\n" for m in models)
    config.write_text(f"models:\n{parts}merge_method: linear\ndtype: float32\nout_dtype: bfloat16\n")
    files = [str(m / "model.safetensors") for m in models]
    size = sum(Path(f).stat().st_size for f in files)
    warm(models)
    times: dict[str, list[float]] = {"ours": [], "mergekit": [], "cat": []}
    peaks: dict[str, float] = {}
    for i in range(rounds + 1):
        flush(work / "ours", work / "mergekit")
        seconds, peaks["ours"] = ours(models, work / "ours", "method=sma", "dtype=bfloat16")
        times["ours"].append(seconds)
        os.sync()
        seconds, peaks["mergekit"] = run([*command, str(config), str(work / "mergekit")])
        times["mergekit"].append(seconds)
        os.sync()
        times["cat"].append(run(["sh", "-c", f"cat {' '.join(files)} > /dev/null"])[0])
        if i == 0:  # the first call of either compiles: ours its inner loops, both their Python
            times = {name: [] for name in times}
    for name, values in times.items():
        peak = f", peak {peaks[name] / 1e9:.2f} GB" if name in peaks else ""
        print(f"  {name:9} {middle(values)} s, {size / statistics.median(values) / 1e9:.2f} GB/s{peak}")
    ratio = statistics.median(t / o for t, o in zip(times["mergekit"], times["ours"], strict=True))
    print(f"  {ratio:.1f} times faster than mergekit; reading alone takes {bandwidth(size)}")
    compare(work / "ours", work / "mergekit")


def bandwidth(size: int) -> str:
    """Time to go through `size` bytes in memory, by torch on all cores."""
    tensor = torch.ones(2**28, dtype=torch.float32)
    tensor.sum()
    began = time.perf_counter()
    for _ in range(4):
        tensor.sum()
    rate = 4 * tensor.nbytes / (time.perf_counter() - began)
    return f"{size / rate:.2f} s from memory ({rate / 1e9:.1f} GB/s, torch)"


def compare(output: Path, mergekit: Path) -> None:
    """Equality with mergekit's output, to the rounding of bf16."""
    a = load_file(output / "model.safetensors")
    b = {k: v for path in sorted(mergekit.glob("*.safetensors")) for k, v in load_file(path).items()}
    b.pop("lm_head.weight", None)
    if a.keys() != b.keys():
        raise RuntimeError(f"tensors differ: {sorted(a.keys() ^ b.keys())[:5]}")
    unequal = sum(int((a[k] != b[k]).sum()) for k in a)
    steps = max(int((a[k].view(torch.int16).int() - b[k].view(torch.int16).int()).abs().max()) for k in a)
    total = sum(v.numel() for v in a.values())
    print(
        f"  against mergekit's output: {unequal:,} of {total:,} values differ, none by more than {steps} step of bf16"
    )
    if steps > 1:
        raise RuntimeError("the outputs differ by more than rounding")


def case_recipes(work: Path, models: list[Path]) -> None:
    """Sixteen recipes in one pass over fifteen snapshots, against sixteen calls; in memory where there is room, for the
    8.5 GB written at once would measure the disk."""
    shared = Path("/dev/shm")
    if shared.is_dir() and shutil.disk_usage(shared).free > 12e9:
        with tempfile.TemporaryDirectory(dir=shared) as folder:
            _case_recipes(work / "run", models, Path(folder))
    else:
        _case_recipes(work / "run", models, work)


def _case_recipes(run_dir: Path, models: list[Path], work: Path) -> None:
    # All runs find memory that the runs before them used, the single ones as it is and the joint ones by running three
    # times: a virtual machine fetches other memory from its host first, slowly, which is not the merge's doing.
    shutil.rmtree(run_dir, ignore_errors=True)
    for i in range(15):
        linked(run_dir / "snapshots" / f"tokens-{(i + 1) * 1000:015d}", models[i % len(models)])
    kinds = ["method:sma", "method:wma", "method:ema,alpha:0.1", "method:ema,alpha:0.2"]
    recipes = [f"{kind},n:{n},interval:1000,end:15000" for kind in kinds for n in (6, 9, 12, 15)]
    many = ",".join(f"{{{r},output:{work}/many/{i}}}" for i, r in enumerate(recipes))
    common = [sys.executable, "-m", "pma.merge", f"run_dir={run_dir}", "dtype=bfloat16"]
    together = [*common, f"merges=[{many}]"]
    make_room()
    times, alone = [], []
    for i, recipe in enumerate([*recipes, None]):
        if i % 8 == 0:  # before, amid and after the single ones: the machine's pace changes
            for _ in range(3):
                flush(work / "many", work / "single")
                warm(models)
                seconds, peak = run(together)
                times.append(seconds)
        if recipe is None:
            break
        flush(work / "single")
        warm(models)
        alone.append(run([*common, *recipe.replace(":", "=").split(","), f"output={work}/single"])[0])
        outputs = (work / "many" / str(i), work / "single")
        contents = {json.loads((output / "manifest.json").read_text())["content"] for output in outputs}
        if len(contents) > 1:
            raise RuntimeError(f"recipe {recipe}: another result alone than together")
    listed = "; ".join(" ".join(f"{seconds:.1f}" for seconds in times[k : k + 3]) for k in range(0, len(times), 3))
    print(f"  together {listed} s, of which the last of each three counts (peak {peak / 1e9:.2f} GB)")
    ratio = sum(alone) / statistics.median(times[2::3])
    print(f"  one at a time {sum(alone):.1f} s: together {ratio:.1f} times faster, the same bytes")
    flush(work / "many", work / "single", run_dir)


def case_memory(work: Path, models: list[Path]) -> None:
    """Peak memory for 10 and for 40 snapshots."""
    peaks = []
    for n in (10, 40):
        many = [linked(work / "linked" / f"{n}-{i}", models[i % len(models)]) for i in range(n)]
        flush(work / "ours")
        seconds, peak = ours(many, work / "ours", "method=sma", "dtype=bfloat16")
        peaks.append(peak)
        print(f"  N = {n}: {seconds:.2f} s, peak {peak / 1e6:.0f} MB")
    print(f"  {100 * (peaks[1] / peaks[0] - 1):+.1f} % from 10 to 40")
    flush(work / "ours", work / "linked")


def case_large(work: Path) -> None:
    """A 7 GB sharded model, N = 3."""
    model = make(work / "large" / "0", 300, 1, shard_layers=60)
    many = [model, *(linked(work / "large" / str(i), model) for i in (1, 2))]
    size = 3 * sum(path.stat().st_size for path in model.glob("*.safetensors"))
    warm([model])
    flush(work / "ours")
    seconds, peak = ours(many, work / "ours", "method=sma", "dtype=bfloat16")
    print(f"  {size / 3e9:.1f} GB a model: {seconds:.1f} s, {size / seconds / 1e9:.2f} GB/s, peak {peak / 1e6:.0f} MB")
    flush(work / "ours", work / "large")


def main() -> None:
    """Run the cases asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["sma", "recipes", "memory", "large"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="folder on the disk to measure on")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that 20 GB are removed then, too
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        work = Path(folder)
        models = []
        if set(args.cases) - {"large"}:
            models = [make(work / "models" / str(i), CONFIG["num_hidden_layers"], i + 1) for i in range(10)]
            print(f"ten models of {(models[0] / 'model.safetensors').stat().st_size / 1e6:.0f} MB")
        for case in args.cases:
            print(case, flush=True)
            if case == "sma":
                case_sma(work, models, args.rounds)
            elif case == "large":
                case_large(work)
            else:
                {"recipes": case_recipes, "memory": case_memory}[case](work, models)


if __name__ == "__main__":
    main()
