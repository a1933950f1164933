"""Score one model folder on one suite: print the table, the same call of lm-eval, and write what was asked for."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig
from transformers import AutoModelForCausalLM

from pma.config import ROOT, hash_json
from pma.device import choose_device
from pma.evaluate.scorer import Score, Scorer
from pma.evaluate.suites import Suite, load_suite, load_text
from pma.evaluate.tasks import write_tasks
from pma.evaluate.vllm import DTYPE, VllmScorer, tensor_parallel_size, vllm_class
from pma.files import write_json
from pma.json_files import MANIFEST, read_manifest
from pma.merge.card import add_scores
from pma.model.build import load_pretrained, load_tokenizer, loading
from pma.snapshot import content_of
from pma.words import print_next


def evaluate(job: DictConfig) -> None:
    """Score the model folder `job.model` on `job.suite`, or read the scores from the cache; print the table.

    The cache knows weights by their content, whatever file they stand in: what `pma.reproduce` or `pma.watch` scored
    with the same cache_dir is not scored again.

    Args:
        job: an EvaluateJob.

    Raises:
        ValueError: for a folder that is no model, a suite without what it needs, or a device or backend that is not
            there.
    """
    _check(job)
    folder = Path(job.model)
    if not _is_model(folder):
        raise ValueError(f"model={folder}: no model there; give a folder with config.json and *.safetensors")
    corpus = None if job.suite == "paper" or job.text is not None else _corpus(job, folder)
    if job.text is None:
        suite = load_suite(job.suite, corpus, job.limit)
    else:
        suite = load_text(Path(job.text), job.limit)
    weights_hash = content_of(folder).rpartition(":")[2]
    scores = (_score_by_vllm if job.backend == "vllm" else _score)(job, folder, suite, weights_hash)
    print(table(scores))
    add_scores(folder, suite.name, [(s.task, s.metric, s.value, s.stderr) for s in scores])
    if corpus is not None:
        print(_lm_eval_command(job, folder, suite, corpus))
    version = suite.version if job.backend == "hf" else f"{suite.version}-{job.backend}"
    if job.tracking.mode != "off":
        _track(job, folder, suite.name, version, scores)
    if job.output is not None:
        result = {"model": job.model, "suite": suite.name, "version": version}
        write_json(Path(job.output), result | {"scores": [asdict(score) for score in scores]})
    if (newest := _newest_source(folder)) is not None:
        same = {"model": newest} | {key: job[key] for key in ("suite", "text", "corpus", "limit")}
        words = [shlex.quote(f"{k}={v}") for k, v in same.items() if v is not None and (k, v) != ("suite", "proxy")]
        print_next(f"python -m pma.evaluate {' '.join(words)}  # the newest snapshot alone, to compare")


def _newest_source(folder: Path) -> str | None:
    """The newest source of a merge, where it lies here as a folder that can be scored."""
    sources = read_manifest(folder).get("sources") if (folder / MANIFEST).is_file() else None
    last = sources[-1] if isinstance(sources, list) and sources else None
    newest = Path(str(last.get("folder"))) if isinstance(last, dict) else None
    return str(newest) if newest is not None and _is_model(newest) and any(newest.glob("tokenizer*")) else None


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _lm_eval_command(job: DictConfig, folder: Path, suite: Suite, corpus: Path) -> str:
    """How to get the same scores from lm-eval alone; writes the tasks that its command line reads."""
    tasks = Path(job.cache_dir) / f"{suite.version}-tasks"
    write_tasks(suite.name, corpus, tasks)
    limit = "" if job.limit is None else f" --limit {job.limit}"
    model = f"--model hf --model_args pretrained={folder},dtype=float32"
    if job.backend == "vllm":
        gpus = tensor_parallel_size(job.tensor_parallel_size)
        model = f"--model vllm --model_args pretrained={folder},dtype={DTYPE},tensor_parallel_size={gpus}"
        model += "" if job.max_model_len is None else f",max_model_len={job.max_model_len}"
    return f"the same by lm-eval alone: lm_eval {model} --include_path {tasks} --tasks pma_{suite.name}{limit}"


def _check(job: DictConfig) -> None:
    if job.backend not in ("hf", "vllm"):
        raise ValueError(f"backend={job.backend}: choose hf or vllm")
    for key in ("tensor_parallel_size", "max_model_len"):
        if job[key] is not None and (job[key] < 1 or job.backend != "vllm"):
            raise ValueError(f"{key}={job[key]}: give a number above 0, together with backend=vllm, or null")
    if job.backend == "vllm":
        vllm_class()
    else:
        choose_device(job.device)


def _score(job: DictConfig, folder: Path, suite: Suite, weights_hash: str) -> list[Score]:
    if suite.name != "paper":
        model = load_pretrained(folder)
    else:  # may be too large for anything but the type it is stored in
        with loading(folder):
            model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
    tokenizer = load_tokenizer(folder)
    scorer = Scorer(suite, model, tokenizer, Path(job.cache_dir), choose_device(job.device), job.threads)
    return scorer.score(weights_hash)


def _score_by_vllm(job: DictConfig, folder: Path, suite: Suite, weights_hash: str) -> list[Score]:
    scorer = VllmScorer(suite, folder, Path(job.cache_dir), job.tensor_parallel_size, job.max_model_len)
    return scorer.score_folder(weights_hash, folder)


def _track(job: DictConfig, folder: Path, suite: str, version: str, scores: list[Score]) -> None:
    """A W&B run with the model as input and the scores as summary and table."""
    from pma.tracking import Run, model_artifact

    model = model_artifact(folder)
    config = {"model": model.name, **model.about, "suite": suite, "version": version, "limit": job.limit}
    identity = {"id": hash_json(config), "name": f"{suite}/{model.name}", "group": job.group, "job_type": "eval"}
    with Run(Path(), job.tracking, **identity, config=config) as run:
        run.used([model])
        run.summary({f"{suite}/{s.task}/{s.metric}": s.value for s in scores})
        run.table("scores", pd.DataFrame([asdict(s) for s in scores]))


def table(scores: list[Score]) -> str:
    """Scores as text, one line each."""
    width = max(len(score.task) for score in scores)
    lines = [f"{'task':{width}}  {'metric':26}  {'value':>9}  {'stderr':>9}  {'n':>6}"]
    for s in scores:
        stderr = "" if s.stderr is None else f"{s.stderr:.4f}"
        lines.append(f"{s.task:{width}}  {s.metric:26}  {s.value:9.4f}  {stderr:>9}  {s.n:6d}")
    return "\n".join(lines)


def _corpus(job: DictConfig, folder: Path) -> Path:
    """job.corpus, or the corpus that the model's manifest names, relative to the repository."""
    if job.corpus is not None:
        return Path(job.corpus)
    corpus = read_manifest(folder).get("corpus") if (folder / MANIFEST).is_file() else None
    if not isinstance(corpus, str):
        raise ValueError(f"{folder}: its manifest names no corpus; give corpus=DIR, a folder with items/ and heldout/")
    return ROOT / corpus
