"""The suites of a corpus, proxy, instruct and reward, as lm-eval tasks: what their YAML says and how an item is scored.

An item is {"context", "choices", "answer", "source"}. Each choice is scored as the continuation of the context, by
plain concatenation. Three metrics:

- `acc`: the choice with the highest log-likelihood is the right one, as lm-eval's acc. Not per byte: the choices of an
  item are of like length by construction, or short answers of a closed set, whose likelihoods compare as they are.
- `bits_per_byte`: -log2 of the likelihood of the right choice, per UTF-8 byte of it. Lower is better. Continuous, so
  it moves where accuracy is still at chance (as the correct-answer losses of arXiv 2406.04391 and 2508.13144).
- `choice`: -log2 of the right choice's share of the likelihood of all choices of the item. Lower is better; log2 of the
  number of choices is chance. Unlike `bits_per_byte` it does not improve where all choices become likelier alike.

Suite reward has one metric more, of items of suite instruct:

- `reward`: the probability that an answer sampled at temperature 1 is the right one, its end included: the expected
  reward of reinforcement learning on such questions. Higher is better.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pma.files import write_text

AXES = {
    "proxy": ("code", "reasoning", "knowledge", "math"),
    "instruct": ("math", "reasoning", "knowledge", "dialogue", "ood"),
    "reward": ("reasoning",),
}
_ITEMS = {"reward": "instruct"}  # of a suite that has none of its own
HELDOUT = "heldout_"
TEXT = "text"  # the task of a user's own text
ITEM_METRICS = {  # of an axis; held-out text has bits per byte alone
    "proxy": ("acc", "bits_per_byte", "choice"),
    "instruct": ("acc", "bits_per_byte", "choice"),
    "reward": ("reward",),
}

_FILE = """\
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
"""

_AXIS = (
    _FILE
    + """\
output_type: multiple_choice
doc_to_text: context
doc_to_choice: choices
doc_to_target: answer
target_delimiter: ""
process_results: !function pma.evaluate.tasks.process_results
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: bits_per_byte, aggregation: mean, higher_is_better: false}}
  - {{metric: choice, aggregation: mean, higher_is_better: false}}
metadata: {{version: 1}}
"""
)

_HELDOUT = (
    _FILE
    + """\
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list:
  - {{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}}
metadata: {{version: 1}}
"""
)

_REWARD = (
    _FILE
    + """\
output_type: loglikelihood
doc_to_text: context
doc_to_target: "{{{{choices[answer]}}}}<|endoftext|>"
target_delimiter: ""
process_results: !function pma.evaluate.tasks.reward
metric_list:
  - {{metric: reward, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1}}
"""
)

_GROUP = """\
group: {group}
task:
{parts}"""

_PART = """\
  - group: {group}
    task: [{tasks}]
    aggregate_metric_list:
"""


def process_results(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    """Metrics of one item from lm-eval's (log-likelihood in nats, is greedy) of each choice."""
    logprobs = [logprob for logprob, _ in results]
    best = max(range(len(logprobs)), key=logprobs.__getitem__)
    right, highest = logprobs[doc["answer"]], logprobs[best]
    total = highest + math.log(sum(math.exp(logprob - highest) for logprob in logprobs))
    return {
        "acc": float(best == doc["answer"]),
        "bits_per_byte": -right / math.log(2) / len(doc["choices"][doc["answer"]].encode()),
        "choice": (total - right) / math.log(2),
    }


def reward(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    """Metric of suite reward, from lm-eval's (log-likelihood in nats, is greedy) of the right answer and its end."""
    return {"reward": math.exp(results[0][0])}


def data_files(suite: str, corpus_dir: Path) -> dict[str, Path]:
    """File of every task of a suite, by task name: the axes, then, of proxy, the held-out domains in order of name.

    Raises:
        ValueError: when the folder is no corpus with items of the suite.
    """
    items = corpus_dir / "items" / _ITEMS.get(suite, suite)
    files = {f"{prefix(suite)}{axis}": items / f"{axis}.jsonl" for axis in AXES[suite]}
    missing = [str(path) for path in files.values() if not path.is_file()]
    if suite == "proxy":
        heldout = sorted((corpus_dir / "heldout").glob("*.jsonl"))
        files |= {f"{prefix(suite)}{HELDOUT}{path.stem}": path for path in heldout}
        missing += [] if heldout else [f"{corpus_dir / 'heldout'}/*.jsonl"]
    if missing:
        raise ValueError(
            f"{corpus_dir}: no corpus with items of suite {suite} there (missing: {', '.join(missing)}); build the "
            f"corpus from a data config that has all domains of the suite"
        )
    return files


def prefix(suite: str) -> str:
    """What the names of a suite's tasks begin with in lm-eval, where they share one name space."""
    return f"pma_{suite}_"


def task_texts(suite: str, files: dict[str, Path]) -> dict[str, str]:
    """YAML by file name, for tasks that read `files`; the group pma_SUITE holds all of them."""
    axes = [task for task in files if HELDOUT not in task]
    heldout = [task for task in files if HELDOUT in task]
    of_axis = _REWARD if suite == "reward" else _AXIS
    texts = {
        f"{task}.yaml": (of_axis if task in axes else _HELDOUT).format(task=task, path=json.dumps(str(path)))
        for task, path in files.items()
    }
    bits_first = sorted(ITEM_METRICS[suite], key=lambda metric: metric != "bits_per_byte")
    groups = {f"{prefix(suite)}axes": (axes, bits_first)}
    if heldout:
        groups[f"{prefix(suite)}heldout"] = (heldout, ["bits_per_byte"])
    parts = ""
    for group, (tasks, of_group) in groups.items():
        parts += _PART.format(group=group, tasks=", ".join(tasks))
        parts += "".join(f"      - {{metric: {metric}, weight_by_size: false}}\n" for metric in of_group)
    return texts | {f"pma_{suite}.yaml": _GROUP.format(group=f"pma_{suite}", parts=parts)}


def text_task(path: str) -> str:
    """YAML of the one task of a text file: bits per byte of its documents."""
    return _HELDOUT.format(task=TEXT, path=json.dumps(path))


def read_texts(path: Path) -> list[str]:
    """Documents of a JSON Lines file, a `text` a line, or of a .txt file, whose documents are its paragraphs.

    Empty documents are left out.

    Raises:
        ValueError: when the file is missing, binary or empty, or a line holds no text.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")  # Windows puts a mark in front
    except UnicodeDecodeError:
        raise ValueError(
            f"text={path}: not UTF-8 text; give a JSON Lines file, a document a line: {_TEXT_FORM}"
        ) from None
    except (FileNotFoundError, IsADirectoryError):
        raise ValueError(
            f"text={path}: no such file; give a JSON Lines file, a document a line: {_TEXT_FORM}"
        ) from None
    if path.suffix == ".txt":
        texts = content.split("\n\n")
    else:
        texts = []
        for number, line in enumerate(content.split("\n"), 1):
            if not line.strip():
                continue
            if not _is_document(line):
                raise ValueError(f"text={path}: line {number} holds no text; each line must be {_TEXT_FORM}")
            texts.append(json.loads(line)["text"])
    if not (texts := [text for text in texts if text.strip()]):
        raise ValueError(f"text={path}: empty; give a JSON Lines file, a document a line: {_TEXT_FORM}")
    return texts


def write_tasks(suite: str, corpus_dir: Path, folder: Path) -> None:
    """Write a suite's YAML so that lm-eval's own command line runs it, with the corpus' absolute path:

    lm_eval --model hf --model_args pretrained=MODEL,dtype=float32 --include_path FOLDER --tasks pma_SUITE
    """
    for name, text in task_texts(suite, data_files(suite, corpus_dir.resolve())).items():
        write_text(folder / name, text)


def check_corpus(suite: str, corpus_dir: Path) -> None:
    """Refuse items and held-out documents of a suite that cannot be scored.

    Raises:
        ValueError: naming file and line.
    """
    for task, path in data_files(suite, corpus_dir).items():
        valid, form = (_is_document, '{"text"}') if HELDOUT in task else (_is_item, _ITEM_FORM)
        with open(path, encoding="utf-8") as lines:
            number = 0
            for number, line in enumerate(lines, 1):
                if not valid(line):
                    raise ValueError(f"{path}:{number}: cannot be scored; each line must be {form}")
        if number == 0:
            raise ValueError(f"{path}: empty; build the corpus again")


_TEXT_FORM = '{"text": "..."}'
_ITEM_FORM = '{"context", "choices": 2 or more, none empty, "answer": index of the right one}'


def _is_item(line: str) -> bool:
    try:
        item = json.loads(line)
        choices = item["choices"]
        return bool(item["context"]) and len(choices) > 1 and all(choices) and 0 <= item["answer"] < len(choices)
    except (json.JSONDecodeError, KeyError, TypeError):
        return False


def _is_document(line: str) -> bool:
    try:
        return isinstance(json.loads(line)["text"], str)
    except (json.JSONDecodeError, KeyError, TypeError):
        return False
