"""The model card of a merge, README.md: what went in with which weights, the command that makes it again, scores.

The card is for people, who may add to it. So the manifest holds no hash of it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pma.files import write_text
from pma.merge.formats import Source
from pma.merge.options import Options, Policy
from pma.merge.weights import method_weights

CARD = "README.md"
_HUB = re.compile(r"([\w.-]+/[\w.-]+)(?:@[\w./-]+)?")
_KEPT = ("license", "license_name", "license_link", "base_model")  # of the sources' cards, where they agree
_OPTIONS = ("accumulate", "format", "prefix", "state", "key", "lora")  # that change what a merge is
_BEGIN, _END = "<!-- scores:begin -->", "<!-- scores:end -->"


def model_card(
    manifest: Mapping[str, Any], sources: Sequence[Source], options: Options, policy: Policy, transformers: bool
) -> str:
    """The text of a card.

    It names neither the output nor the folders above the sources: the same merge has the same card wherever it is made,
    and a card that is published tells nothing of your machine.

    Args:
        manifest: of the merge, with recipe, sources, weights and decay.
        sources: open, oldest first, also those that the merge does not use.
        transformers: whether the folder is to be loaded by transformers.
    """
    used = manifest["sources"]
    given = [source["folder"] for source in used]
    names, n = _short(given), len(used)
    folders = {source.name: source.folder for source in sources}
    mean = f"The weighted mean of {n} checkpoints, oldest first" if n > 1 else "A copy of one checkpoint"
    stored = "as in the newest checkpoint" if manifest["dtype"] == "newest" else f"as {manifest['dtype']}"
    lines = [
        *_front_matter([folders[name] for name in given], given, sources[-1], transformers),
        "",
        f"# Merge of {n} checkpoint{'s' if n > 1 else ''}",
        "",
        f"{mean}. Weights are stored {stored}, sums were taken in {manifest['accumulated_in']}. Nothing was trained. "
        f"`manifest.json` holds the whole record.",
        "",
        "| checkpoint | weight | content |",
        "|---|---|---|",
        *(
            f"| {name} | {source['weight']:.6g} | {source['content'].rpartition(':')[2]} |"
            for name, source in zip(names, used, strict=True)
        ),
        "",
    ]
    if n > 1 and (decay := manifest["equivalent_decay"]) is not None:
        factors = ", ".join(f"{factor:.3g}" for factor in decay)
        lines += [
            f"The weights amount to a decay of the learning rate: from each checkpoint to the next, its factor would "
            f"have been {factors}.",
            "",
        ]
    lines += [f"Made with pma {manifest['version']}, where the checkpoints lie:", "", "```bash"]
    lines += [_command(manifest, names, options, policy), "```", ""]
    return "\n".join(lines)


def add_scores(folder: Path, suite: str, scores: Sequence[tuple[str, str, float, float | None]]) -> None:
    """Put scores into the card of a merge; earlier ones of that suite are replaced. Without such a card: nothing.

    Args:
        scores: task, metric, value, and standard error or null.
    """
    path = folder / CARD
    if not path.is_file() or not os.access(path, os.W_OK):
        return
    text = path.read_text(encoding="utf-8")
    if "Made with pma " not in text:
        return
    before, _, rest = text.partition(_BEGIN)
    table, _, after = rest.partition(_END)
    rows = [row for row in table.splitlines() if row.startswith("| ") and not row.startswith("| suite |")]
    rows = [row for row in rows if not row.startswith(f"| {suite} |")]
    rows += [
        f"| {suite} | {task} | {metric} | {value:.4f} | {'' if error is None else f'{error:.4f}'} |"
        for task, metric, value, error in scores
    ]
    head = ["| suite | task | metric | value | standard error |", "|---|---|---|---|---|"]
    if not rest:
        before += "\n## Scores\n\n"
    write_text(path, before + "\n".join([_BEGIN, *head, *rows, _END]) + (after or "\n"))


def _short(names: Sequence[str]) -> list[str]:
    """Names of sources without the folders that all local ones lie in; revisions of the hub as they are."""
    local = [name for name in names if Path(name).exists()]
    above = os.path.commonpath([Path(name).absolute().parent for name in local]) if local else ""
    return [os.path.relpath(Path(name).absolute(), above) if name in local else name for name in names]


def _front_matter(folders: Sequence[Path], names: Sequence[str], newest: Source, transformers: bool) -> list[str]:
    """The YAML that the hub reads; values are written as JSON, which YAML holds in it."""
    values: dict[str, Any] = {}
    cards = [_front_matter_of(folder) for folder in dict.fromkeys(folders)]
    for key in _KEPT:
        given = {card[key] for card in cards if key in card}
        if len(given) == 1:
            values[key] = given.pop()
    base = dict.fromkeys(
        match[1] for name in names if not Path(name).exists() and (match := _HUB.fullmatch(name)) is not None
    )
    if newest.adapter is not None:
        base = dict.fromkeys([str(newest.adapter.get("base_model_name_or_path", ""))])
    base = {name: None for name in base if _HUB.fullmatch(name) and not Path(name).exists()}
    if base:
        values["base_model"] = json.dumps(list(base))
    if newest.adapter is not None:
        values["library_name"] = "peft"
    elif transformers:
        values["library_name"] = "transformers"
    values["tags"] = json.dumps(["merge", "checkpoint-averaging"])
    return ["---", *(f"{key}: {value}" for key, value in values.items()), "---"]


def _front_matter_of(folder: Path) -> dict[str, str]:
    """The keys of a source's own card that have their value in the same line."""
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    match = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    lines = match[1].splitlines() if match else []
    pairs = (re.fullmatch(r"(\w+): +(\S.*?)\s*", line) for line in lines)
    return {pair[1]: pair[2] for pair in pairs if pair and pair[1] in _KEPT}


def _command(manifest: Mapping[str, Any], names: Sequence[str], options: Options, policy: Policy) -> str:
    """The command that makes the merge again from its sources alone."""
    recipe, weights = manifest["recipe"], [source["weight"] for source in manifest["sources"]]
    words = [f"sources=[{','.join(names)}]"]
    method, alpha = recipe.get("method"), recipe.get("alpha")
    if method is not None and method_weights(method, len(weights), alpha) == weights:
        words += [f"method={method}", *([] if alpha is None else [f"alpha={alpha}"])]
    else:
        words.append(f"weights={json.dumps(weights, separators=(',', ':'))}")
    if manifest["dtype"] != "newest":
        words.append(f"dtype={manifest['dtype']}")
    chosen = {key: value for key, value in asdict(options).items() if key in _OPTIONS} | asdict(policy)
    usual = asdict(Options()) | asdict(Policy())
    words += [f"{key}={value}" for key, value in chosen.items() if value != usual[key]]
    if options.assets is not None:
        words.append("assets=FOLDER")
    return " ".join(["python -m pma.merge", *map(shlex.quote, words), "output=OUT"])
