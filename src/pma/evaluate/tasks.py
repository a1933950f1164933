"""The proxy suite as lm-eval tasks: what its YAML says and how an item of an axis is scored.

An item is {"context", "choices", "answer", "source"}. Each choice is scored as the continuation of the context, by
plain concatenation. Two metrics:

- `acc`: the choice with the highest log-likelihood per UTF-8 byte is the right one. Per byte, because the choices
  differ in length; bytes rather than tokens, so that tokenizers can be compared (lm-eval calls this acc_bytes).
- `bits_per_byte`: -log2 of the likelihood of the right choice, per UTF-8 byte of it. Lower is better. Continuous, so
  it moves where accuracy is still at chance (as the correct-answer losses of arXiv 2406.04391 and 2508.13144).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pma.files import write_text

AXES = ("code", "reasoning", "knowledge", "math")
PREFIX = "pma_"
HELDOUT = "heldout_"

_AXIS = """\
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: context
doc_to_choice: choices
doc_to_target: answer
target_delimiter: ""
process_results: !function pma.evaluate.tasks.process_results
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: bits_per_byte, aggregation: mean, higher_is_better: false}}
metadata: {{version: 1}}
"""

_HELDOUT = """\
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list:
  - {{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}}
metadata: {{version: 1}}
"""

_GROUPS = """\
group: pma_proxy
task:
  - group: pma_axes
    task: [{axes}]
    aggregate_metric_list:
      - {{metric: acc, weight_by_size: false}}
      - {{metric: bits_per_byte, weight_by_size: false}}
  - group: pma_heldout
    task: [{heldout}]
    aggregate_metric_list:
      - {{metric: bits_per_byte, weight_by_size: false}}
"""


def process_results(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    """Metrics of one item from lm-eval's (log-likelihood in nats, is greedy) of each choice."""
    per_byte = [logprob / len(choice.encode()) for (logprob, _), choice in zip(results, doc["choices"], strict=True)]
    best = max(range(len(per_byte)), key=per_byte.__getitem__)
    return {"acc": float(best == doc["answer"]), "bits_per_byte": -per_byte[doc["answer"]] / math.log(2)}


def data_files(corpus_dir: Path) -> dict[str, Path]:
    """File of every task of the proxy suite, by task name: the axes, then the held-out domains in order of name.

    Raises:
        ValueError: when the folder is no corpus.
    """
    axes = {PREFIX + axis: corpus_dir / "items" / f"{axis}.jsonl" for axis in AXES}
    heldout = {f"{PREFIX}{HELDOUT}{p.stem}": p for p in sorted((corpus_dir / "heldout").glob("*.jsonl"))}
    missing = [str(path) for path in axes.values() if not path.is_file()]
    if missing or not heldout:
        what = ", ".join(missing) or f"{corpus_dir / 'heldout'}/*.jsonl"
        raise ValueError(f"{corpus_dir}: no corpus with evaluation items there (missing: {what}); build the corpus")
    return axes | heldout


def task_texts(files: dict[str, Path]) -> dict[str, str]:
    """YAML by file name, for tasks that read `files`."""
    axes = [task for task in files if HELDOUT not in task]
    heldout = [task for task in files if HELDOUT in task]
    texts = {
        f"{task}.yaml": (_AXIS if task in axes else _HELDOUT).format(task=task, path=json.dumps(str(path)))
        for task, path in files.items()
    }
    return texts | {"pma_proxy.yaml": _GROUPS.format(axes=", ".join(axes), heldout=", ".join(heldout))}


def write_tasks(corpus_dir: Path, folder: Path) -> None:
    """Write the suite's YAML so that lm-eval's own command line runs it, with the corpus' absolute path:

    lm_eval --model hf --model_args pretrained=MODEL,dtype=float32 --include_path FOLDER --tasks pma_proxy
    """
    for name, text in task_texts(data_files(corpus_dir.resolve())).items():
        write_text(folder / name, text)


def check_corpus(corpus_dir: Path) -> None:
    """Refuse items and held-out documents that cannot be scored.

    Raises:
        ValueError: naming file and line.
    """
    for task, path in data_files(corpus_dir).items():
        valid, form = (_is_document, '{"text"}') if HELDOUT in task else (_is_item, _ITEM_FORM)
        with open(path, encoding="utf-8") as lines:
            number = 0
            for number, line in enumerate(lines, 1):
                if not valid(line):
                    raise ValueError(f"{path}:{number}: cannot be scored; each line must be {form}")
        if number == 0:
            raise ValueError(f"{path}: empty; build the corpus again")


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
