"""Score many weights on one suite, each of them once: the cache, and what is computed of lm-eval's answers."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import stderr_for_metric, unweighted_mean_stderr
from lm_eval.api.model import LM
from lm_eval.api.task import Task
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from pma.config import hash_json
from pma.device import cpu_threads
from pma.evaluate.language_model import FastLM
from pma.evaluate.suites import Average, Row, Suite
from pma.files import write_text
from pma.json_files import read_json

_BOOTSTRAP_DRAWS = 1000  # for metrics without a closed-form standard error


@dataclass(frozen=True)
class Score:
    """One value of one task.

    Attributes:
        value: accuracies are shares of 1; bits_per_byte are bits a byte of UTF-8 text, lower is better.
        stderr: over items; None where there is no estimate.
        n: items.
    """

    task: str
    metric: str
    value: float
    stderr: float | None
    n: int


ItemValues = dict[tuple[str, str], list[float]]  # values of single items by (task, metric)


def read_scores(path: Path) -> tuple[list[Score], ItemValues] | None:
    """Scores and values of single items (see `CachedScorer.items`) in a file of the cache; None when there is no file.

    Raises:
        ValueError: for a damaged file.
    """
    try:
        cached = read_json(path, "scores", "items")
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{error}; or remove it, and it is scored again") from None
    try:
        items = {(entry["task"], entry["metric"]): list(map(float, entry["values"])) for entry in cached["items"]}
        scores = [Score(**score) for score in cached["scores"]]
        if not all(isinstance(score.value, (int, float)) for score in scores):
            raise TypeError("a score that is no number")
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"{path}: not the scores that were written; remove it, and it is scored again") from None
    return scores, items


class CachedScorer:
    """Scores, through lm-eval's tasks, whatever weights an LM of lm-eval holds; each weights once.

    Scores are cached as `cache_dir/<suite>-<encoding>/<weights>.json`. Several processes may fill one cache at once.
    Weights are named by the hash of their content (`pma.snapshot.content_of`, without its prefix) by everybody who
    shares a cache, else the same weights are scored twice.

    Args:
        suite: from `load_suite`.
        encoding: what decides a score beside suite and weights: tokenizer, architecture, longest input in tokens,
            arithmetic.
        cache_dir: folder of the cache.
    """

    _lm: LM | None = None

    def __init__(self, suite: Suite, encoding: list[Any], cache_dir: Path) -> None:
        self._suite = suite
        self._quiet = suite.name != "paper" or not sys.stderr.isatty()  # the others take seconds
        self._folder = Path(cache_dir) / f"{suite.version}-{hash_json(encoding)[:8]}"

    def path(self, weights_hash: str) -> Path:
        """File of the cache for the weights named `weights_hash`."""
        return self._folder / f"{weights_hash}.json"

    def score(self, weights_hash: str, load: Callable[[], None] | None = None) -> list[Score]:
        """Scores of the weights named `weights_hash`: from the cache, or computed after `load` put them into the model.

        Raises:
            ValueError: when the model gives log-likelihoods that are not finite.
        """
        path = self.path(weights_hash)
        if (cached := read_scores(path)) is None:
            if load is not None:
                load()
            write_text(path, json.dumps(self._compute(weights_hash), separators=(",", ":")))
            cached = read_scores(path)
            assert cached is not None
        return cached[0]

    def score_loaded(self, tasks: Sequence[str]) -> list[Score]:
        """Scores of whatever the model holds now, on the named tasks alone; not cached.

        Raises:
            ValueError: for a task the suite does not have, or log-likelihoods that are not finite.
        """
        chosen = {source: task for source, task in self._suite.tasks.items() if Row(source, "").task in tasks}
        if len(chosen) != len(tasks):
            raise ValueError(f"tasks={list(tasks)}: suite {self._suite.name} has {', '.join(self._suite.tasks)}")
        self._answer("now in the model", list(chosen))
        return [
            _task_score(Row(source, key), task, values)
            for source, task in chosen.items()
            for key, values in self._values(source, task).items()
        ]

    def items(self, weights_hash: str) -> ItemValues:
        """Values of single items by (task, metric), in the suite's order, of weights that were scored before.

        Their mean is the score. For held-out text an item is a document, and its value is its bits over the mean bytes
        of a document, so that long documents weigh more.

        Raises:
            ValueError: when these weights were not scored.
        """
        if (cached := read_scores(self.path(weights_hash))) is None:
            raise ValueError(f"weights {weights_hash}: not scored on suite {self._suite.name} yet; call score first")
        return cached[1]

    def _compute(self, weights_hash: str) -> dict[str, Any]:
        self._answer(weights_hash, list(self._suite.tasks))
        scores: dict[Row, Score] = {}
        items = []
        for name, task in self._suite.tasks.items():
            for key, values in self._values(name, task).items():
                row = Row(name, key)
                scores[row] = _task_score(row, task, values)
                items.append({"task": row.task, "metric": row.metric, "values": _item_values(values)})
        for row in self._suite.rows:
            if row not in scores:
                scores[row] = self._group_score(row, scores)
        averages = [_average(average, scores) for average in self._suite.averages]
        reported = [scores[row] for row in self._suite.rows] + averages
        return {"suite": self._suite.name, "scores": [asdict(score) for score in reported], "items": items}

    def _answer(self, weights_hash: str, tasks: list[str]) -> None:
        """Put the model's answer into every request of the tasks, as lm-eval's evaluate does."""
        by_type: dict[str, list[Instance]] = defaultdict(list)
        for request in chain.from_iterable(chain.from_iterable(self._suite.requests[task] for task in tasks)):
            request.resps, request.filtered_resps = [], {}
            by_type[request.request_type] += [request] * request.repeats
        for request_type, requests in by_type.items():
            answers = getattr(self._lm, request_type)(requests, disable_tqdm=self._quiet)
            for request, answer in zip(requests, answers, strict=True):
                number = answer[0] if isinstance(answer, tuple) else answer
                if isinstance(number, float) and not math.isfinite(number):
                    raise ValueError(f"weights {weights_hash}: log-likelihood {number}; they hold NaN or overflow")
                request.resps.append(answer)

    def _values(self, name: str, task: Task) -> dict[str, list[Any]]:
        """lm-eval's value of each document, by "metric,filter"."""
        task.apply_filters()
        values = defaultdict(list)
        for requests in self._suite.requests[name]:
            for filter_name in requests[0].filtered_resps:
                answers = [request.filtered_resps[filter_name] for request in requests]
                for metric, value in task.process_results(requests[0].doc, answers).items():
                    values[f"{metric},{filter_name}"].append(value)
        return values

    def _group_score(self, row: Row, scores: dict[Row, Score]) -> Score:
        tasks: dict[str, dict[str, Any]] = defaultdict(dict)
        metric, _, filter_name = row.key.partition(",")
        for leaf, score in scores.items():
            if leaf.key == row.key:
                tasks[leaf.source] = {
                    row.key: score.value,
                    f"{metric}_stderr,{filter_name}": "N/A" if score.stderr is None else score.stderr,
                    "sample_len": score.n,
                }
        result = self._suite.groups[row.source].aggregate(tasks)
        stderr = result[f"{metric}_stderr,{filter_name}"]
        stderr = None if stderr == "N/A" else float(stderr)
        return Score(row.task, row.metric, float(result[row.key]), stderr, result["sample_len"])


class Scorer(CachedScorer):
    """Scores whatever weights `model` holds, in memory.

    Args:
        suite: from `load_suite`.
        model: a causal LM; moved to `device`.
        tokenizer: the model's.
        cache_dir: of the scores, see `CachedScorer`.
        device: cpu | cuda.
        threads: CPU threads; 0: the cores this job may use. Does not change a score.
    """

    def __init__(
        self,
        suite: Suite,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        cache_dir: Path,
        device: str | torch.device = "cpu",
        threads: int = 0,
    ) -> None:
        self._lm = FastLM(model.to(device).eval(), tokenizer, cpu_threads(threads))
        encoding = [tokenizer_state(tokenizer), architecture(model.config), self._lm.max_length, str(model.dtype)]
        super().__init__(suite, encoding, cache_dir)


def _task_score(row: Row, task: Task, values: list[Any]) -> Score:
    aggregate = task.aggregation()[row.key.partition(",")[0]]
    estimate = stderr_for_metric(aggregate, _BOOTSTRAP_DRAWS)
    if len(values) < 2:
        stderr = None
    elif estimate is not None:
        stderr = float(estimate(values))
    else:
        stderr = _ratio_stderr(values)
    return Score(row.task, row.metric, float(aggregate(values)), stderr, len(values))


def _item_values(values: list[Any]) -> list[float]:
    """Values whose mean is the score: as they are, or from (log-likelihood, bytes) pairs."""
    if isinstance(values[0], tuple):
        mean_bytes = statistics.fmean(size for _, size in values)
        values = [-logprob / math.log(2) / mean_bytes for logprob, _ in values]
    return [round(float(value), 7) for value in values]


def _ratio_stderr(values: list[tuple[float, int]]) -> float:
    """Standard error of sum(bits) / sum(bytes) over documents (ratio estimator, Cochran, Sampling Techniques, 6.4);
    lm-eval gives none for its bits_per_byte."""
    bits = [-logprob / math.log(2) for logprob, _ in values]
    sizes = [size for _, size in values]
    ratio, n = sum(bits) / sum(sizes), len(values)
    squares = sum((b - ratio * size) ** 2 for b, size in zip(bits, sizes, strict=True))
    return math.sqrt(n / (n - 1) * squares) / sum(sizes)


def _average(average: Average, scores: dict[Row, Score]) -> Score:
    """Unweighted mean; its standard error takes the tasks as independent."""
    parts = [scores[row] for row in average.of]
    stderrs = [part.stderr for part in parts]
    stderr = None if None in stderrs else float(unweighted_mean_stderr(stderrs))
    value = statistics.fmean(part.value for part in parts)
    return Score(average.task, average.metric, value, stderr, sum(part.n for part in parts))


def architecture(config: PreTrainedConfig) -> dict[str, Any]:
    """What of a config decides which function the weights compute: the same weights under another rope_theta or with
    fewer experts a token are another model. Where the folder lies and how it is stored do not count."""
    ignored = ("_name_or_path", "architectures", "dtype", "transformers_version")
    return {key: value for key, value in config.to_dict().items() if key not in ignored}


def tokenizer_state(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """What decides an encoding; padding and truncation are set by callers and do not."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    return [state | {"padding": None, "truncation": None}, tokenizer.bos_token, tokenizer.eos_token]
