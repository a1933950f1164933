"""Training on one GPU, against transformers' Trainer and against the bare matrix products; then merging and scoring.

    python benchmarks/gpu.py                        # an H100 or H200: about 20 minutes
    python benchmarks/gpu.py --cases dense-124m     # of CASES below
    python benchmarks/gpu.py --sides ours ceiling   # of SIDES below; a side left out stands as 0
    python benchmarks/gpu.py --warm                 # only compile, all at once; the next call finds it in the cache
    python benchmarks/gpu.py --cases moe-60m --profile   # which kernels a step of ours spends its time in
    python benchmarks/gpu.py --tiny                 # any machine: the same code at shapes divided down, its wiring only

Each side runs in a process of its own, one after the other, on the same model, batch and data (generated text with a
tokenizer of 512 entries, built once in data/: speed does not depend on it). Ours is pma.train itself. Trainer runs with
bf16 and fused AdamW, with and without torch_compile; the better of the two counts. The first half of the steps,
compilation among them, is not timed.

FLOPs a token: 6 N + 12 L H Q T, N the active parameters that are multiplied with (pma.model.build.flops_per_token);
MFU is that, times tokens a second, over the data sheet's dense bf16 rate of the GPU (PEAK). The ceiling is what the
matrix products and the attention of a step take alone, forward and both backward products, timed one shape at a time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from pma.config import CONF_DIR, ModelConfig, register
from pma.files import write_json
from pma.model.build import flops_per_token, parameter_counts

PEAK = {"NVIDIA H100": 989.4e12, "NVIDIA H200": 989.4e12}  # SXM, dense bf16, from NVIDIA's data sheets
SIDES = ("ours", "trainer", "trainer-compiled", "ceiling")
CASES = ("dense-30m", "dense-124m", "dense-350m", "moe-60m", "moe-250m", "moe-1b", "saving", "together", "scoring")


@dataclass(frozen=True)
class Shape:
    """A model and its batch."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    width: int  # of the feed-forward layer, or of an expert
    vocabulary: int
    micro_batches: int  # of a batch of 131,072 tokens
    experts: int = 0
    chosen: int = 0


SHAPES = {
    "dense-30m": Shape(512, 8, 8, 4, 1536, 16384, 1),
    "dense-124m": Shape(768, 12, 12, 12, 2048, 50304, 2),
    "dense-350m": Shape(1024, 24, 16, 16, 2752, 50304, 4),
    "moe-60m": Shape(384, 8, 6, 2, 384, 16384, 1, 16, 2),  # conf/model/gpu/moe_1.3b_13b
    "moe-250m": Shape(768, 8, 12, 4, 192, 16384, 2, 64, 8),
    "moe-1b": Shape(1024, 16, 16, 4, 320, 16384, 4, 64, 8),
}


def config(name: str, tiny: bool, steps: int, folder: Path, *more: str) -> DictConfig:
    """A training job of `steps` steps of a shape: sequences of 1024, batches of 131,072 tokens."""
    s, part = SHAPES[name], 8 if tiny else 1
    length, batch = (64, 512) if tiny else (1024, 131072)
    model = {
        "kind": "moe" if s.experts else "dense",
        "vocab_size": s.vocabulary // part,
        "hidden_size": s.hidden // part,
        "layers": max(1, s.layers // part),
        "heads": s.heads,
        "kv_heads": s.kv_heads,
        "head_dim": 64 // part,
        "intermediate_size": "null" if s.experts else s.width // part,
        "experts": s.experts or "null",
        "experts_per_token": s.chosen or "null",
        "expert_intermediate_size": s.width // part if s.experts else "null",
    }
    register()
    overrides = [
        "scale=gpu",
        "data=generated",
        *(f"model.{key}={value}" for key, value in model.items()),
        f"scale.sequence_length={length}",
        f"scale.batch_tokens={batch}",
        f"scale.micro_batches={s.micro_batches}",
        f"train.total_tokens={steps * batch}",
        f"train.snapshot_interval={steps * batch}",
        f"train.checkpoint_interval={steps * batch}",
        "train.fork_points=[]",
        f"train.log_interval={steps // 8}",
        "schedule.warmup_tokens=0",
        "tracking=off",
        f"runs_dir={folder / 'runs'}",
        f"run_id={name}",
    ]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose("config", [*overrides, *more])


def peak_memory() -> float:
    """Bytes of GPU memory that this process held at most."""
    return float(torch.cuda.max_memory_reserved()) if torch.cuda.is_available() else 0.0


def ours(cfg: DictConfig) -> dict[str, float]:
    """Tokens a second of pma.train in the second half of its steps, from its own metrics."""
    from pma.train.loop import train

    rows = [json.loads(line) for line in (train(cfg) / "metrics.jsonl").read_text().splitlines()]
    speeds = [row["tokens_per_second"] for row in rows if row["tokens"] > cfg.train.total_tokens / 2]
    return {"speed": statistics.harmonic_mean(speeds), "memory": peak_memory(), "loss": rows[-1]["loss"]}


def profile(cfg: DictConfig) -> dict[str, Any]:
    """Milliseconds a step of the kernels that pma.train spends most time in, from all of its steps."""
    from torch.autograd.profiler_util import DeviceType
    from torch.profiler import ProfilerActivity

    from pma.train.loop import train

    on_gpu = torch.cuda.is_available()
    with torch.profiler.profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        train(cfg)
    steps = cfg.train.total_tokens // cfg.scale.batch_tokens
    where = DeviceType.CUDA if on_gpu else DeviceType.CPU
    times = Counter()
    for event in profiler.events():
        if event.device_type == where:
            times[event.name] += (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1000 / steps
    return {"milliseconds": sum(times.values()), "kernels": times.most_common(30)}


def trainer(cfg: DictConfig, compiled: bool) -> dict[str, float]:
    """Tokens a second of transformers' Trainer in the second half of its steps."""
    from peer import trainer_speed

    steps = cfg.train.total_tokens // cfg.scale.batch_tokens
    speed = trainer_speed(cfg, steps // 2, cfg.scale.micro_batches, bf16=True, compiled=compiled)
    return {"speed": speed, "memory": peak_memory()}


# ---- the ceiling -----------------------------------------------------------------------------------------------------


def seconds(work: Callable[[], object], repeats: int = 10) -> float:
    """Median time of a call, by events on a GPU."""
    for _ in range(2):
        work()
    if not torch.cuda.is_available():
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        return statistics.median(times)
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    for mark in marks[:-1]:
        mark.record()
        work()
    marks[-1].record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in pairwise(marks)) / 1000


def products(m: ModelConfig) -> Counter[tuple[int, int]]:
    """(inputs, outputs) of the matrix products of a token, with how often each comes; the experts' aside."""
    q, kv = m.heads * m.head_dim, m.kv_heads * m.head_dim
    each = [(m.hidden_size, q), (m.hidden_size, kv), (m.hidden_size, kv), (q, m.hidden_size)]
    if m.kind == "dense":
        each += 2 * [(m.hidden_size, m.intermediate_size)] + [(m.intermediate_size, m.hidden_size)]
    return Counter(m.layers * each + [(m.hidden_size, m.vocab_size)])


def ceiling(cfg: DictConfig) -> dict[str, float]:
    """Tokens a second if a step were its matrix products and attention alone, in bf16, on random numbers."""
    m, length = cfg.model, cfg.scale.sequence_length
    rows = cfg.scale.batch_tokens // cfg.scale.micro_batches
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.bfloat16, device=device)

    def product(inputs: int, outputs: int) -> float:
        x, w, y = random(rows, inputs), random(outputs, inputs), random(rows, outputs)
        return sum(map(seconds, (lambda: x @ w.T, lambda: y @ w, lambda: y.T @ x)))

    def grouped(inputs: int, outputs: int) -> float:
        many = rows * m.experts_per_token
        ends = torch.arange(1, m.experts + 1, device=device, dtype=torch.int32) * (many // m.experts)
        x, w = random(many, inputs).requires_grad_(), random(m.experts, inputs, outputs).requires_grad_()
        y = random(many, outputs)
        forward = seconds(lambda: torch.nn.functional.grouped_mm(x, w, offs=ends))
        output = torch.nn.functional.grouped_mm(x, w, offs=ends)
        return forward + seconds(lambda: torch.autograd.grad(output, (x, w), y, retain_graph=True))

    def attention() -> float:
        q, k, v = (random(rows // length, m.heads, length, m.head_dim).requires_grad_() for _ in range(3))
        call = torch.nn.functional.scaled_dot_product_attention
        out = call(q, k, v, is_causal=True)
        backward = seconds(lambda: torch.autograd.grad(out, (q, k, v), torch.ones_like(out), retain_graph=True))
        return seconds(lambda: call(q, k, v, is_causal=True)) + backward

    total = m.layers * attention() + sum(many * product(*shape) for shape, many in products(m).items())
    if m.kind == "moe":
        width = m.expert_intermediate_size
        total += m.layers * (grouped(m.hidden_size, 2 * width) + grouped(width, m.hidden_size))
    return {"speed": rows / total}


# ---- merging and scoring ---------------------------------------------------------------------------------------------


def scoring(cfg: DictConfig, tiny: bool) -> dict[str, float]:
    """Merging ten snapshots into a model on the device, and scoring it: bytes and items a second."""
    from evaluate import make_corpus
    from transformers import AutoTokenizer

    from pma.evaluate import Scorer, load_suite
    from pma.layout import snapshots
    from pma.merge import averages
    from pma.model.build import load_pretrained, load_weights
    from pma.train.loop import train

    folders = list(snapshots(train(cfg)).values())[-10:]
    corpus = Path(cfg.runs_dir).parent / "scoring"
    make_corpus(corpus, 20 if tiny else 1500, 2 if tiny else 12)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_pretrained(folders[-1]).to(device)
    suite, tokenizer = load_suite("proxy", corpus), AutoTokenizer.from_pretrained(folders[-1])
    scorer = Scorer(suite, model, tokenizer, corpus / "scores", device)
    size = sum(path.stat().st_size for folder in folders for path in folder.glob("*.safetensors"))
    times: dict[str, list[float]] = {"merge": [], "load": [], "score": []}
    for i in range(3):  # the first encodes the texts
        marks = [time.perf_counter()]
        merged = averages(folders, [[1 / len(folders)] * len(folders)])[0]
        marks.append(time.perf_counter())
        load_weights(model, merged.tensors)
        marks.append(time.perf_counter())
        scores = scorer.score(f"round-{i}")
        marks.append(time.perf_counter())
        for key, (a, b) in zip(times, pairwise(marks), strict=True):
            times[key].append(b - a)
    items = sum(s.n for s in scores if s.metric == "bits_per_byte" and s.task != "average")
    best = {key: min(values) for key, values in times.items()}
    return {
        "merge_bytes_per_second": size / best["merge"],
        "load_seconds": best["load"],
        "items_per_second": items / best["score"],
        "score_seconds": best["score"],
    }


# ---- the cases -------------------------------------------------------------------------------------------------------


class Bench:
    """Runs each side in a process of its own and keeps the numbers that it prints."""

    def __init__(self, folder: Path, tiny: bool, steps: int, sides: Sequence[str]) -> None:
        self.folder, self.tiny, self.steps, self.sides = folder, tiny, steps, sides
        self.results: dict[str, Any] = {}

    def start(self, side: str, name: str, *more: str) -> subprocess.Popen:
        """Start a side of a case in a process."""
        command = [sys.executable, __file__, "--child", side, name, str(self.folder), "--steps", str(self.steps)]
        command += ["--tiny"] * self.tiny + [f"--override={value}" for value in more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def result(self, process: subprocess.Popen) -> dict[str, float]:
        """Return the numbers a side printed; where it failed, print its error and return none, and the rest goes on."""
        out, error = process.communicate()
        if process.returncode:
            print(f"  failed: {error.strip().splitlines()[-1][:300]}", flush=True)
            return {}
        return json.loads(out.splitlines()[-1])

    def run(self, side: str, name: str, *more: str) -> dict[str, float]:
        """Start a side and wait for its numbers."""
        return self.result(self.start(side, name, *more))

    def warm(self, cases: Sequence[str]) -> None:
        """Compile what the cases of models will time: all sides at once, into the compiler's cache."""
        began = time.perf_counter()
        sides = [side for side in self.sides if side in ("ours", "trainer-compiled")]
        more = "runs_dir=" + str(self.folder / "warm")
        running = [self.start(side, case, more) for case in cases if case in SHAPES for side in sides]
        for process in running:
            self.result(process)
        print(f"compiled in {time.perf_counter() - began:.0f} s", flush=True)

    def profile(self, name: str) -> None:
        """Print the kernels that a step of ours spends its time in."""
        times = self.results[f"profile of {name}"] = self.run("profile", name, "run_id=profiled")
        if times:
            print(f"{name}: {times['milliseconds']:.1f} ms of kernels a step")
            for kernel, milliseconds in times["kernels"]:
                print(f"{milliseconds:9.2f} ms  {kernel[:110]}", flush=True)

    def model(self, name: str) -> None:
        """Print the row of a model."""
        m = config(name, self.tiny, self.steps, self.folder)
        flops = flops_per_token(m.model, m.scale.sequence_length)
        sides = {side: self.run(side, name) if side in self.sides else {} for side in SIDES}
        peer = max(sides["trainer"].get("speed", 0), sides["trainer-compiled"].get("speed", 0))
        speed, best = sides["ours"].get("speed", 0), sides["ceiling"].get("speed", 0)
        rate = next((rate for gpu, rate in PEAK.items() if gpu in device_name()), None)
        counts = parameter_counts(m.model)
        row = {
            "parameters": {"total": counts.total, "active": counts.active},
            "flops_per_token": flops,
            **sides,
            "mfu": rate and speed * flops / rate,
            "ceiling_mfu": rate and best * flops / rate,
            "ratio": speed / peer if peer else None,
        }
        self.results[name] = row
        mfu, top = (f"{100 * row[key]:5.1f} %" if rate else "      -" for key in ("mfu", "ceiling_mfu"))
        print(
            f"{name:12}{counts.total / 1e6:8.1f} M{speed:13,.0f}{mfu:>9}{sides['ours'].get('memory', 0) / 1e9:8.1f} GB"
            f"{sides['trainer'].get('speed', 0):13,.0f}{sides['trainer-compiled'].get('speed', 0):13,.0f}"
            f"{row['ratio'] or 0:8.2f}{best:13,.0f}{top:>9}",
            flush=True,
        )

    def saving(self) -> None:
        """The main model with a snapshot as often as its scale saves them, and none."""
        every = self.steps // 8
        batch = config("moe-60m", self.tiny, self.steps, self.folder).scale.batch_tokens
        more = f"train.snapshot_interval={every * batch}"
        pairs = [
            (self.run("ours", "moe-60m", f"run_id=none{i}"), self.run("ours", "moe-60m", f"run_id=saves{i}", more))
            for i in range(3)
        ]
        cost = statistics.median(plain["speed"] / saves["speed"] - 1 for plain, saves in pairs if plain and saves)
        self.results["saving"] = {"every_steps": every, "cost": cost}
        print(f"a snapshot of moe-60m every {every} steps costs {100 * cost:.1f} % of the time", flush=True)

    def together(self) -> None:
        """Several small runs at once."""
        for name in ("dense-30m", "moe-60m"):
            total = {}
            for many in (1, 2, 4):
                running = [self.start("ours", name, f"run_id={name}-{many}-{i}") for i in range(many)]
                total[many] = sum(self.result(process).get("speed", 0) for process in running)
            self.results[f"together, {name}"] = total
            speeds = ", ".join(f"{many}: {speed:,.0f}" for many, speed in total.items())
            print(f"{name}, tokens a second of all runs at once: {speeds}", flush=True)

    def scoring(self) -> None:
        """Merging and scoring."""
        batch = config("moe-60m", self.tiny, self.steps, self.folder).scale.batch_tokens
        more = (f"train.snapshot_interval={self.steps // 8 * batch}", "run_id=scored")
        speeds = self.results["scoring"] = self.run("scoring", "moe-60m", *more)
        if speeds:
            print(
                f"moe-60m: merged {speeds['merge_bytes_per_second'] / 1e9:.2f} GB/s, put in place in "
                f"{speeds['load_seconds']:.2f} s, scored {speeds['items_per_second']:,.0f} items/s",
                flush=True,
            )


def device_name() -> str:
    """Name of the GPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def main() -> None:
    """Run the chosen cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--steps", type=int, default=48, help="a multiple of 8")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--warm", action="store_true", help="only compile what would be timed, all of it at once")
    parser.add_argument("--profile", action="store_true", help="the kernels of a step instead of speeds")
    parser.add_argument("--tiny", action="store_true", help="shapes divided down, for a machine without a GPU")
    parser.add_argument("--output", type=Path, help="JSON file for all numbers")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)  # side, case, folder
    parser.add_argument("--override", action="append", default=[], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        side, name, folder = options.child
        cfg = config(name, options.tiny, options.steps, Path(folder), *options.override)
        sides = {
            "ours": lambda: ours(cfg),
            "trainer": lambda: trainer(cfg, compiled=False),
            "trainer-compiled": lambda: trainer(cfg, compiled=True),
            "ceiling": lambda: ceiling(cfg),
            "scoring": lambda: scoring(cfg, options.tiny),
            "profile": lambda: profile(cfg),
        }
        if side.startswith("trainer"):
            cfg.runs_dir = f"{folder}/{side}"
        print(json.dumps(sides[side]()))
        return
    if not torch.cuda.is_available() and not options.tiny:
        raise SystemExit("error: no CUDA device is visible; --tiny runs the same code at shapes divided down")
    print(f"{device_name()}, torch {torch.__version__}; batches of 131,072 tokens, {options.steps} steps")
    print(
        f"{'model':12}{'parameters':>10}{'ours tok/s':>13}{'MFU':>9}{'memory':>11}{'Trainer':>13}{'compiled':>13}"
        f"{'ratio':>8}{'ceiling':>13}{'MFU':>9}"
    )
    with tempfile.TemporaryDirectory() as folder:
        steps = 8 if options.warm else options.steps  # the graph is the same however many there are
        bench = Bench(Path(folder), options.tiny, steps, options.sides)
        if options.warm:
            bench.warm(options.cases)
            return
        for case in options.cases:
            if case in SHAPES:
                (bench.profile if options.profile else bench.model)(case)
            else:
                getattr(bench, case)()
            if options.output:
                setting = {"device": device_name(), "torch": torch.__version__, "steps": options.steps}
                write_json(options.output, {**setting, "cases": bench.results})


if __name__ == "__main__":
    main()
