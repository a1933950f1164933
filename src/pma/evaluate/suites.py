"""Suites: named sets of lm-eval tasks, built once and scored many times."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import json
import logging
import os
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import astuple, dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
from lm_eval.api.group import Group
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager

from pma.config import SCORING_VERSION, hash_json
from pma.evaluate.tasks import (
    AXES,
    HELDOUT,
    ITEM_METRICS,
    TEXT,
    check_corpus,
    data_files,
    prefix,
    read_texts,
    task_texts,
    text_task,
    write_tasks,
)

logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of a model that is loaded already, as ours are

SUITES = (*AXES, "paper")
_FEWSHOT_SEED = 1234  # lm-eval's default


@dataclass(frozen=True)
class Row:
    """One reported value: where lm-eval keeps it and what we call it."""

    source: str  # lm-eval's task or group
    key: str  # lm-eval's "metric,filter"

    @property
    def task(self) -> str:
        """Our name of the task."""
        for suite in AXES:
            if self.source.startswith(prefix(suite)):
                return self.source.removeprefix(prefix(suite))
        return self.source

    @property
    def metric(self) -> str:
        """Our name of the metric: lm-eval's, with the filter where there is one."""
        return self.key.removesuffix(",none")


@dataclass(frozen=True)
class Average:
    """The unweighted mean of rows."""

    task: str
    metric: str
    of: tuple[Row, ...]


@dataclass(frozen=True)
class Benchmark:
    """One benchmark of the paper in lm-eval, with the shots usual for base models."""

    name: str
    row: Row
    shots: int | None  # None: lm-eval's task fixes them


# Ape210K, the sixteenth, has no task in lm-eval.
PAPER = (
    Benchmark("ARC-Challenge", Row("arc_challenge", "acc_norm,none"), 25),
    Benchmark("BBH", Row("bbh_cot_fewshot", "exact_match,get-answer"), None),  # 3, with chains of thought
    Benchmark("DROP", Row("drop", "f1,none"), 3),
    Benchmark("WinoGrande", Row("winogrande", "acc,none"), 5),
    Benchmark("HellaSwag", Row("hellaswag", "acc_norm,none"), 10),
    Benchmark("MMLU", Row("mmlu", "acc,none"), 5),
    Benchmark("C-Eval", Row("ceval-valid", "acc,none"), 5),
    Benchmark("TriviaQA", Row("triviaqa", "exact_match,remove_whitespace"), 5),
    Benchmark("GSM8K", Row("gsm8k_cot", "exact_match,strict-match"), None),  # 8, with chains of thought
    Benchmark("MATH", Row("minerva_math", "math_verify,none"), None),  # 4
    Benchmark("MBPP", Row("mbpp", "pass_at_1,none"), None),  # 3
    Benchmark("HumanEval", Row("humaneval", "pass@1,create_test"), None),  # 0
    Benchmark("AGIEval", Row("agieval", "acc,none"), 0),
    Benchmark("GPQA", Row("gpqa_main_n_shot", "acc_norm,none"), 5),
    Benchmark("MMLU-Pro", Row("mmlu_pro", "exact_match,custom-extract"), None),  # 5, with chains of thought
)


class Suite:
    """lm-eval's tasks with their requests built once, and what to report of them.

    Attributes:
        version: hash of everything but the model that decides a score: items, task definitions, shots, limit, lm-eval's
            version and SCORING_VERSION.
        requests: by task, the requests of each document.
    """

    def __init__(
        self,
        name: str,
        tasks: dict[str, Task],
        groups: dict[str, Group],
        rows: list[Row],
        averages: list[Average],
        limit: int | None,
        definition: Any,
    ) -> None:
        self.name, self.tasks, self.groups, self.rows, self.averages = name, tasks, groups, rows, averages
        self.requests: dict[str, list[list[Instance]]] = {}
        for task_name, task in tasks.items():
            with contextlib.redirect_stderr(io.StringIO()):  # lm-eval's progress bars, one a task
                task.build_all_requests(limit=limit)
            documents = defaultdict(list)
            for request in task.instances:
                documents[request.doc_id].append(request)
            self.requests[task_name] = list(documents.values())
        items = {t: [[repr(d[0].doc), [repr(r.args) for r in d]] for d in self.requests[t]] for t in tasks}
        self.version = hash_json([SCORING_VERSION, version("lm-eval"), limit, definition, items])

    def half(self, which: int, tasks: Collection[str]) -> Suite:
        """Every second document of some tasks, from the first on (0) or from the second on (1).

        It has values of single documents alone: no rows and no averages.
        """
        half = copy.copy(self)
        half.rows, half.averages = [], []
        half.tasks = {name: copy.copy(self.tasks[name]) for name in tasks}
        half.requests = {name: self.requests[name][which::2] for name in tasks}
        for name, documents in half.requests.items():
            half.tasks[name]._instances = list(chain.from_iterable(documents))  # those that its filters go through
        half.version = hash_json([self.version, which, list(tasks)])
        return half


def load_suite(name: str, corpus_dir: Path | None = None, limit: int | None = None) -> Suite:
    """Build a suite.

    Args:
        name: proxy | instruct | reward (from the corpus' own items, no network) | paper (from the Hugging Face hub).
        corpus_dir: folder with items/ and heldout/; all but the paper suite need it.
        limit: first documents a task; None takes all.

    Raises:
        ValueError: for an unknown name, a folder without items, an item that cannot be scored, or where something is
            missing that the paper suite needs.
    """
    if name not in SUITES:
        raise ValueError(f"suite={name}: choose one of {', '.join(SUITES)}")
    check_limit(limit)
    if name == "paper":
        return _load_paper(limit)
    if corpus_dir is None:
        raise ValueError(f"suite={name} needs a corpus: give corpus=DIR, a folder with items/ and heldout/")
    return _load_of_corpus(name, Path(corpus_dir), limit)


def check_limit(limit: int | None) -> None:
    """Raise ValueError for a number of items below 1."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: give a number of items above 0, or null for all")


def load_text(path: Path, limit: int | None = None) -> Suite:
    """Build a suite of one task out of a user's own text: bits per byte of the documents in a file.

    Args:
        path: see `read_texts`.
        limit: first documents; None takes all.

    Raises:
        ValueError: for a file that is missing, binary or empty, or a line without text.
    """
    check_limit(limit)
    texts = read_texts(path)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, _offline(folder):
        copy = Path(folder) / "text.jsonl"  # of the text alone: lm-eval's reader wants the same keys in every line
        copy.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        (Path(folder) / "text.yaml").write_text(text_task(str(copy)), encoding="utf-8")
        tasks = TaskManager(include_path=folder, include_defaults=False).load([TEXT])["tasks"]
        set_shots(tasks, None)
        return Suite(TEXT, tasks, {}, [Row(TEXT, "bits_per_byte,none")], [], limit, text_task(""))


def _load_of_corpus(name: str, corpus_dir: Path, limit: int | None) -> Suite:
    check_corpus(name, corpus_dir)
    files = data_files(name, corpus_dir)
    axes = {metric: [Row(prefix(name) + a, f"{metric},none") for a in AXES[name]] for metric in ITEM_METRICS[name]}
    heldout = [Row(task, "bits_per_byte,none") for task in files if HELDOUT in task]
    averages = [Average("average", metric, tuple(rows)) for metric, rows in axes.items()]
    if heldout:
        averages.append(Average("heldout", "bits_per_byte", tuple(heldout)))
    definition = task_texts(name, {task: path.relative_to(corpus_dir) for task, path in files.items()})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, _offline(folder):
        write_tasks(name, corpus_dir, Path(folder))
        loaded = TaskManager(include_path=folder, include_defaults=False).load([f"pma_{name}"])
        set_shots(loaded["tasks"], None)
        rows = [*chain.from_iterable(axes.values()), *heldout]
        return Suite(name, loaded["tasks"], {}, rows, averages, limit, definition)


def _load_paper(limit: int | None) -> Suite:
    check_paper_needs()
    manager = TaskManager()
    tasks: dict[str, Task] = {}
    groups: dict[str, Group] = {}
    for benchmark in PAPER:
        try:
            loaded = manager.load([benchmark.row.source])
        except Exception as error:  # the hub's libraries raise what they like; all of it means "not to be had"
            reads = ", ".join(f"{b.name} ({_dataset(manager, b.row.source)})" for b in PAPER)
            raise ValueError(
                f"suite=paper: {benchmark.name} could not be loaded ({str(error).splitlines()[0]}). The suite reads "
                f"from the Hugging Face hub: {reads}. Connect to the hub (GPQA also wants its terms accepted and "
                "`hf auth login`) or fill HF_HOME on a machine that is connected; suite=proxy needs no network"
            ) from error
        set_shots(loaded["tasks"], benchmark.shots)
        tasks |= loaded["tasks"]
        groups |= loaded["groups"]
    rows = [benchmark.row for benchmark in PAPER]
    definition = [astuple(benchmark) for benchmark in PAPER]
    return Suite("paper", tasks, groups, rows, [Average("average", "score", tuple(rows))], limit, definition)


def check_paper_needs() -> None:
    """Refuse the paper suite where it could not be scored.

    Raises:
        ValueError: naming the setting or the package that it needs.
    """
    if os.environ.get("HF_ALLOW_CODE_EVAL") != "1":
        raise ValueError(
            "suite=paper: HumanEval and MBPP run code that the model writes; set HF_ALLOW_CODE_EVAL=1 to allow it, "
            "best in a container without network"
        )
    if importlib.util.find_spec("math_verify") is None:
        raise ValueError("suite=paper: MATH needs the package math_verify; pip install 'lm-eval[math]'")


def _dataset(manager: TaskManager, name: str) -> str:
    """Hub dataset of a task, or of the first task of a group or tag."""
    entry = manager.task_index[name]
    config = entry.cfg or {"task": sorted(entry.tags)}
    return config.get("dataset_path") or _dataset(manager, config["task"][0])


def set_shots(tasks: dict[str, Task], shots: int | None) -> None:
    """Few-shot examples as lm-eval's simple_evaluate sets them: a task that fixes 0 keeps 0."""
    for task in tasks.values():
        fixed = task.config.num_fewshot
        task.set_config("num_fewshot", fixed or 0 if shots is None or fixed == 0 else shots)
        task.set_fewshot_seed(_FEWSHOT_SEED)


@contextlib.contextmanager
def _offline(cache_dir: str) -> Iterator[None]:
    """No network for the hub's libraries, and their cache of the items in `cache_dir`."""
    constants, config = huggingface_hub.constants, datasets.config
    before = constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE, config.HF_DATASETS_CACHE
    constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE, config.HF_DATASETS_CACHE = True, True, Path(cache_dir)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE, config.HF_DATASETS_CACHE = before
