"""The command: score one model folder and print the table."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

from pma.config import ROOT, hash_json
from pma.device import choose_device
from pma.evaluate.scorer import Score, Scorer
from pma.evaluate.suites import Suite, load_suite
from pma.evaluate.tasks import write_tasks
from pma.evaluate.vllm import DTYPE, VllmScorer, tensor_parallel_size, vllm_class
from pma.files import MANIFEST, read_manifest, sha256_file, write_json
from pma.model.build import load_pretrained


def evaluate(cfg: DictConfig) -> None:
    """Score the model folder `cfg.model` on `cfg.suite`, from the cache where it stands there.

    Raises:
        ValueError: for a folder that is no model, a suite without what it needs, or a device or backend that is not
            there.
    """
    _check(cfg)
    folder = Path(cfg.model)
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    if not files[0].is_file() or len(files) == 1:
        raise ValueError(f"model={folder}: no model there; give a folder with config.json and *.safetensors")
    corpus = None if cfg.suite == "paper" else _corpus(cfg, folder)
    suite = load_suite(cfg.suite, corpus, cfg.limit)
    weights = hash_json([sha256_file(path) for path in files])
    scores = (_score_by_vllm if cfg.backend == "vllm" else _score)(cfg, folder, suite, weights)
    print(table(scores))
    if corpus is not None:
        tasks = Path(cfg.cache_dir) / f"{suite.version}-tasks"
        write_tasks(suite.name, corpus, tasks)
        limit = "" if cfg.limit is None else f" --limit {cfg.limit}"
        model = f"--model hf --model_args pretrained={folder},dtype=float32"
        if cfg.backend == "vllm":
            gpus = tensor_parallel_size(cfg.tensor_parallel_size)
            model = f"--model vllm --model_args pretrained={folder},dtype={DTYPE},tensor_parallel_size={gpus}"
            model += "" if cfg.max_model_len is None else f",max_model_len={cfg.max_model_len}"
        print(f"the same by lm-eval alone: lm_eval {model} --include_path {tasks} --tasks pma_{suite.name}{limit}")
    version = suite.version if cfg.backend == "hf" else f"{suite.version}-{cfg.backend}"
    if cfg.tracking.mode != "off":
        _track(cfg, folder, version, scores)
    if cfg.output is not None:
        result = {"model": cfg.model, "suite": suite.name, "version": version}
        write_json(Path(cfg.output), result | {"scores": [asdict(score) for score in scores]})


def _check(cfg: DictConfig) -> None:
    if cfg.backend not in ("hf", "vllm"):
        raise ValueError(f"backend={cfg.backend}: choose hf or vllm")
    for key in ("tensor_parallel_size", "max_model_len"):
        if cfg[key] is not None and (cfg[key] < 1 or cfg.backend != "vllm"):
            raise ValueError(f"{key}={cfg[key]}: give a number above 0, together with backend=vllm, or null")
    if cfg.backend == "vllm":
        vllm_class()
    else:
        choose_device(cfg.device)


def _score(cfg: DictConfig, folder: Path, suite: Suite, weights: str) -> list[Score]:
    if suite.name != "paper":
        model = load_pretrained(folder)
    else:  # may be too large for anything but the type it is stored in
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return Scorer(suite, model, tokenizer, Path(cfg.cache_dir), choose_device(cfg.device), cfg.threads).score(weights)


def _score_by_vllm(cfg: DictConfig, folder: Path, suite: Suite, weights: str) -> list[Score]:
    scorer = VllmScorer(suite, folder, Path(cfg.cache_dir), cfg.tensor_parallel_size, cfg.max_model_len)
    return scorer.score_folder(weights, folder)


def _track(cfg: DictConfig, folder: Path, version: str, scores: list[Score]) -> None:
    """A W&B run with the model as input and the scores as summary and table."""
    from pma.tracking import Run, model_artifact

    model = model_artifact(folder)
    config = {"model": model.name, **model.about, "suite": cfg.suite, "version": version, "limit": cfg.limit}
    about = {"id": hash_json(config), "name": f"{cfg.suite}/{model.name}", "group": cfg.group, "job_type": "eval"}
    with Run(Path(), cfg.tracking, **about, config=config) as run:
        run.used([model])
        run.summary({f"{cfg.suite}/{s.task}/{s.metric}": s.value for s in scores})
        run.table("scores", pd.DataFrame([asdict(s) for s in scores]))


def table(scores: list[Score]) -> str:
    """Scores as text, one line each."""
    width = max(len(score.task) for score in scores)
    lines = [f"{'task':{width}}  {'metric':26}  {'value':>9}  {'stderr':>9}  {'n':>6}"]
    for s in scores:
        stderr = "" if s.stderr is None else f"{s.stderr:.4f}"
        lines.append(f"{s.task:{width}}  {s.metric:26}  {s.value:9.4f}  {stderr:>9}  {s.n:6d}")
    return "\n".join(lines)


def _corpus(cfg: DictConfig, folder: Path) -> Path:
    """The corpus asked for, or the one named by the model's manifest, relative to the project."""
    if cfg.corpus is not None:
        return Path(cfg.corpus)
    named = read_manifest(folder).get("corpus") if (folder / MANIFEST).is_file() else None
    if named is None:
        raise ValueError(f"{folder}: its manifest names no corpus; give corpus=DIR, a folder with items/ and heldout/")
    return ROOT / named
