"""Scoring and choosing from damaged folders: the same scores, or one line."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from random import Random

from campaign import Ended, Outcome, command, names, refusal
from damage import BYTES, JSON, cut, damaged, garbage, line, root
from prepared import linked, own, prepared
from tiny import scored_run


def _world(folder: Path) -> None:
    """Checkpoints of one small model, text to score them on, and what scoring and choosing say of them."""
    scored_run(folder)
    scored, searched = evaluate(folder), choose(folder)
    for ended in (scored, searched):
        if ended.code:
            raise RuntimeError(f"nothing to damage: {ended.stderr[-800:]}")
    (folder / "chosen.txt").write_text(_table(searched))


def evaluate(folder: Path) -> Ended:
    """Score the newest checkpoint."""
    arguments = ["model=run/checkpoint-40", "text=held.jsonl", "cache_dir=scores", "output=scores.json", "threads=1"]
    return command("pma.evaluate", *arguments, "device=cpu", folder=folder, seconds=120)


def choose(folder: Path) -> Ended:
    """Find the best merge of the run."""
    arguments = ["run_dir=run", "text=held.jsonl", "output=chosen", "methods=[sma]", "threads=1", "device=cpu"]
    return command("pma.choose", *arguments, folder=folder, seconds=120)


def _table(ended: Ended) -> str:
    """What choose says, but for the time and for how many were scored before."""
    lines = "\n".join(re.findall(r"^ *(?:\d|sma|single|last|best|the ).*", ended.stdout, re.MULTILINE))
    return re.sub(r"\(\d+ scored before\)", "", lines)


def _scores(folder: Path) -> list[float]:
    return [score["value"] for score in json.loads((folder / "scores.json").read_bytes())["scores"]]


def _outcome(outcome: Outcome | None, wrong: str, where: str, damage: str) -> Outcome:
    if outcome is not None:
        return Outcome(outcome.verdict if damage else "wrong", f"{where} {damage}: {outcome.note}")
    return Outcome("wrong" if wrong else "right", f"{where} {damage}: {wrong}")


def damaged_evaluation(random: Random, folder: Path) -> Outcome:
    """A model folder, the text or a file of the cache of scores is damaged."""
    made = prepared(folder, "scored", _world)
    for name in ("run", "scores"):
        linked(made / name, folder / name)
    (folder / "held.jsonl").write_bytes((made / "held.jsonl").read_bytes())
    model = folder / "run/checkpoint-40"
    (cached,) = (path for path in (folder / "scores").rglob("*.json"))
    files = {
        model / "config.json": JSON,
        model / "model.safetensors": BYTES,
        model / "tokenizer.json": (root, cut, garbage),
        model / "tokenizer_config.json": JSON,
        folder / "held.jsonl": (line, cut, garbage),
        cached: JSON,
    }
    path = random.choice([cached, *files])
    damage = damaged(own(path), random, files[path])
    if path != cached:
        cached.unlink()
    before = names(folder)
    ended = evaluate(folder)
    outcome = refusal(ended, folder, before, path.parent.name if path.parent == model else path.name)
    wrong = ""
    if outcome is None:
        scores, expected = _scores(folder), _scores(made)
        decides = path.name in ("config.json", "model.safetensors", "held.jsonl") or "tokenizer" in path.name
        if not all(map(math.isfinite, scores)) or (scores != expected and not (damage and decides)):
            wrong = f"{scores} instead of {expected}"
    return _outcome(outcome, wrong, path.name, damage)


def damaged_choice(random: Random, folder: Path) -> Outcome:
    """The scores that a search goes on from are damaged."""
    made = prepared(folder, "scored", _world)
    linked(made / "run", folder / "run")
    (folder / "held.jsonl").write_bytes((made / "held.jsonl").read_bytes())
    choose(folder)  # a search goes on from scores of checkpoints that lie in the same place
    path = folder / "chosen/candidates.jsonl"
    damage = damaged(path, random, (line, line, line, cut, garbage))
    before = names(folder)
    ended = choose(folder)
    outcome, expected = refusal(ended, folder, before, path.name), (made / "chosen.txt").read_text()
    wrong = "" if outcome is not None or _table(ended) == expected else f"{_table(ended)} instead of {expected}"
    return _outcome(outcome, wrong, path.name, damage)
