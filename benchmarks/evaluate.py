"""Scoring many merges in one process against calling lm-eval's command line for each.

    python benchmarks/evaluate.py               # about 6 minutes on 2 cores: 3 calls of the command line
    python benchmarks/evaluate.py --calls 20    # every model through the command line
    python benchmarks/evaluate.py --before REV  # scoring and measuring in pma.reproduce, now and at a git revision

Both score the same models (an MoE of 0.6M parameters, perturbed copies of it) on the same items with the same CPU
threads. Each round times one call of the command line and one fresh process that scores all models, start-up, imports
and tokenisation included; so in-process seconds a model are that process' wall-clock divided by the models.

With --before both revisions score the runs below --runs-dir, which `make reproduce` has trained, from nothing, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen3MoeConfig

from pma.evaluate import Scorer, load_suite, write_tasks
from pma.evaluate.tasks import AXES
from pma.model.build import load_pretrained, load_weights

ROOT = Path(__file__).resolve().parents[1]
WORDS = "zero one two three four five six seven eight nine ten plus minus times equals is the sum of and then".split()


def make_corpus(folder: Path, items: int, domains: int) -> None:
    """Items of 2 to 4 choices and 40 KB of held-out text a domain, in words for numbers."""
    rng = random.Random(0)

    def text(low: int, high: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high)))

    for axis in AXES["proxy"]:
        lines = []
        for _ in range(items):
            choices = [" " + text(2, 8) for _ in range(rng.choice((2, 4, 4, 4)))]
            answer = rng.randrange(len(choices))
            lines.append({"context": text(20, 50), "choices": choices, "answer": answer, "source": "synthetic"})
        write_lines(folder / "items" / "proxy" / f"{axis}.jsonl", lines)
    for domain in range(domains):
        write_lines(folder / "heldout" / f"domain{domain}.jsonl", [{"text": text(100, 500)} for _ in range(27)])


def write_lines(path: Path, lines: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def make_models(folder: Path, corpus: Path, count: int) -> list[Path]:
    """Model folders with one tokenizer: a random model and copies with noise added."""
    trained = ByteLevelBPETokenizer()
    texts = [json.loads(line)["text"] for path in sorted(corpus.glob("heldout/*.jsonl")) for line in open(path)]
    trained.train_from_iterator(texts, vocab_size=512, special_tokens=["<|endoftext|>"], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<|endoftext|>")
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=2048, hidden_size=64, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        num_experts=8, num_experts_per_tok=2, moe_intermediate_size=64, max_position_embeddings=256,
        tie_word_embeddings=True, initializer_range=0.1,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    folders = [folder / f"model{number}" for number in range(count)]
    for path in folders:
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
        for parameter in model.parameters():
            parameter.data += 0.01 * torch.randn_like(parameter)
    return folders


def score_all(corpus: Path, models: list[Path], cache: Path, threads: int) -> dict[str, float]:
    """Average bits per byte of each model's axes, all in this process."""
    model = load_pretrained(models[0])
    tokenizer = AutoTokenizer.from_pretrained(models[0])
    scorer = Scorer(load_suite("proxy", corpus), model, tokenizer, cache, "cpu", threads)
    averages = {}
    for path in models:
        scores = scorer.score(path.name, lambda path=path: load_weights(model, load_pretrained(path).state_dict()))
        averages[path.name] = next(s.value for s in scores if (s.task, s.metric) == ("average", "bits_per_byte"))
    return averages


def timed(command: list[str], threads: int) -> float:
    """Wall-clock seconds of a command."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
    began = time.perf_counter()
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return time.perf_counter() - began


def command_line_average(folder: Path) -> float:
    """Average bits per byte of the axes in what lm-eval's command line wrote."""
    results = json.loads(next(folder.rglob("results_*.json")).read_text())["results"]
    return results["pma_proxy::pma_proxy_axes"]["bits_per_byte,none"]


def compare(args: argparse.Namespace, folder: Path) -> None:
    """Time both sides round by round and print the table."""
    corpus = args.corpus or folder / "corpus"
    if args.corpus is None:
        make_corpus(corpus, args.items, args.domains)
    models = make_models(folder / "models", corpus, args.models)
    write_tasks("proxy", corpus, folder / "tasks")
    in_process, command_line = [], []
    print(f"{'round':>5}  {'command line, s':>15}  {f'{args.models} in one process, s':>24}  {'s a model':>9}")
    for number in range(args.calls):
        model, output, shared = models[number % args.models], folder / f"cli{number}", folder / f"shared{number}"
        cli = ["--model", "hf", "--model_args", f"pretrained={model},dtype=float32", "--device", "cpu"]
        cli += ["--include_path", str(folder / "tasks"), "--tasks", "pma_proxy"]
        cli += ["--batch_size", str(args.batch_size), "--output_path", str(output)]
        command_line.append(timed([sys.executable, "-m", "lm_eval", *cli], args.threads))
        own = [__file__, "--threads", str(args.threads), "--score", str(shared), str(corpus), *map(str, models)]
        in_process.append(timed([sys.executable, *own], args.threads))
        print(
            f"{number + 1:5}  {command_line[-1]:15.1f}  {in_process[-1]:24.1f}  {in_process[-1] / args.models:9.2f}",
            flush=True,
        )
        averages = json.loads((shared / "averages.json").read_text())
        if abs(averages[model.name] - command_line_average(output)) > 1e-4:
            raise RuntimeError(f"{model.name}: {averages[model.name]} here, {command_line_average(output)} by lm-eval")
    per_model = statistics.median(in_process) / args.models
    per_call = statistics.median(command_line)
    print(
        f"median: {per_call:.1f} s a model by lm-eval's command line, {per_model:.2f} s in a process of {args.models} "
        f"(start-up amortised over them): {per_call / per_model:.1f} times as fast; {args.threads} threads, same scores"
    )


def reproduce(tree: Path, folder: Path, args: argparse.Namespace) -> float:
    """Wall-clock seconds in which the code of a tree scores and measures experiments whose runs are trained."""
    runs = folder / "runs" / "cpu"
    runs.mkdir(parents=True)
    for run in (args.runs_dir / "cpu").glob(f"*-seed{args.seed}"):
        (runs / run.name).symlink_to(run.resolve())
    (folder / "data").mkdir()
    (folder / "data" / "corpora").symlink_to((ROOT / "data" / "corpora").resolve())
    command = [sys.executable, "-m", "pma.reproduce", "experiment=all", "jobs=2", f"seeds=[{args.seed}]"]
    command += [f"experiment.includes=[{','.join(args.experiments)}]", "tracking.mode=off"]
    command += [f"runs_dir={folder / 'runs'}", f"data_dir={folder / 'data'}"]
    began = time.perf_counter()
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(tree / "src")}, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return time.perf_counter() - began


def compare_revisions(args: argparse.Namespace, folder: Path) -> None:
    """Time this tree and another revision in turn, and compare what they wrote."""
    before = folder / "before"
    subprocess.run(["git", "-C", str(ROOT), "worktree", "add", "--detach", str(before), args.before], check=True)
    try:
        print(f"{'round':>5}  {f'{args.before}, s':>14}  {'now, s':>8}  {'ratio':>6}")
        ratios = []
        for number in range(args.rounds):
            old, new = (folder / f"{name}{number}" for name in ("old", "new"))
            seconds = reproduce(before, old, args), reproduce(ROOT, new, args)
            ratios.append(seconds[0] / seconds[1])
            print(f"{number + 1:5}  {seconds[0]:14.1f}  {seconds[1]:8.1f}  {ratios[-1]:6.2f}", flush=True)
            for path in sorted((old / "runs").rglob("records.csv")):
                if path.read_bytes() != (new / path.relative_to(old)).read_bytes():
                    raise RuntimeError(f"{path.parent.name}: the two revisions give other records")
        print(f"median: {statistics.median(ratios):.2f} times as fast as {args.before}; the same bytes of records")
    finally:
        subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(before)], check=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--calls", type=int, default=3, help="calls of lm-eval's command line")
    parser.add_argument("--items", type=int, default=400, help="synthetic items an axis")
    parser.add_argument("--domains", type=int, default=4, help="synthetic held-out domains of 40 KB")
    parser.add_argument("--corpus", type=Path, help="a corpus folder instead of synthetic items")
    parser.add_argument("--batch-size", type=int, default=16, help="of lm-eval's command line")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each side")
    parser.add_argument("--before", help="a git revision to compare pma.reproduce with")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs", help="with trained runs, for --before")
    parser.add_argument("--seed", type=int, default=0, help="of those runs")
    parser.add_argument("--experiments", nargs="+", default=["figure_1", "figure_3", "figure_4", "figure_8"])
    parser.add_argument("--rounds", type=int, default=3, help="for --before")
    parser.add_argument(
        "--score", nargs="+", type=Path, help=argparse.SUPPRESS
    )  # one timed process: OUT CORPUS MODEL...
    args = parser.parse_args()
    if args.score:
        out, corpus, *models = args.score
        averages = score_all(corpus, models, out, args.threads)
        (out / "averages.json").write_text(json.dumps(averages))
        return
    with tempfile.TemporaryDirectory() as folder:
        (compare_revisions if args.before else compare)(args, Path(folder))


if __name__ == "__main__":
    main()
