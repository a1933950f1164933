"""Score the candidates of one run, those that an earlier call left open, and report the best."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from pma.choose.candidates import Candidate, candidates
from pma.choose.halves import Halves
from pma.choose.report import report
from pma.config import hash_json
from pma.device import choose_device
from pma.evaluate import Scorer, load_text
from pma.files import complete_lines, write_text
from pma.merge import Policy
from pma.merge.checkpoints import Run
from pma.merge.formats import open_source
from pma.merge.memory import averages
from pma.merge.options import Options, Part, select
from pma.model.build import load_architecture, load_weights
from pma.words import count, duration

_AT_ONCE = 16  # merges between two looks at the clock, at most


def search(job: DictConfig) -> None:
    """Score what is open and the budget allows, then print the table, the gain, and the command of the best.

    Raises:
        ValueError: as `python -m pma.choose`.
    """
    began = time.monotonic()
    run = Run(job.run_dir)
    positions = [at for at in run.checkpoints if job.end is None or at <= job.end]
    if not positions or (job.end is not None and positions[-1] != job.end):
        raise ValueError(
            f"end={job.end}: no complete checkpoint stands there; give one of {list(run.checkpoints)[-3:]}"
        )
    wanted = candidates(positions, list(job.methods), job.longest, job.singles)
    suite = load_text(Path(job.text), job.limit)
    documents = [requests[0].doc["text"] for requests in suite.requests["text"]]
    halves = Halves([len(text.encode()) for text in documents])
    kept = Kept(Path(job.output), suite.version, {at: run.checkpoints[at] for at in positions})
    todo = [candidate for candidate in wanted if candidate not in kept]
    print(
        f"{count(len(positions), 'checkpoint')} up to {positions[-1]:,}, {count(len(wanted), 'candidate')} "
        f"({len(wanted) - len(todo)} scored before), {count(len(documents), 'document')}",
        flush=True,
    )
    if todo:
        judge = Judge(job, run, suite, halves)
        for i, some in enumerate(_groups(todo, judge.at_once)):
            if i and job.budget is not None and time.monotonic() - began > 60 * job.budget:
                break
            for candidate, bits in zip(some, judge.bits(some), strict=True):
                kept.add(candidate, bits)
    scored = {candidate: kept[candidate] for candidate in wanted if candidate in kept}
    left = len(wanted) - len(scored)
    if left:
        print(f"the budget of {job.budget:g} minutes is over; {left} candidates are open, the same command goes on")
    print(f"scored in {duration(time.monotonic() - began)}")
    report(job, run, positions[-1], scored, halves)


def _groups(todo: Sequence[Candidate], size: int) -> list[Sequence[Candidate]]:
    return [todo[i : i + size] for i in range(0, len(todo), size)]


class Judge:
    """Scores merges with their weights swapped into one model.

    Attributes:
        at_once: merges that fit into the memory asked for.

    Raises:
        ValueError: when there is no config or tokenizer, or the model cannot be built.
    """

    def __init__(self, job: DictConfig, run: Run, suite: Any, halves: Halves) -> None:
        from transformers import AutoTokenizer

        self._job, self._run, self._halves = job, run, halves
        self._policy = Policy(suspicious=job.suspicious)
        self._policy.check()
        Options(assets=job.assets).check()
        newest = list(run.checkpoints.values())[-1]
        place = Path(job.assets or newest)
        if not any(place.glob("tokenizer*")):
            raise ValueError(f"{place}: no tokenizer there; assets=FOLDER names a folder with config and tokenizer")
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
        self._model = load_architecture(place)
        device = choose_device(job.device)
        self._scorer = Scorer(suite, self._model, tokenizer, Path(job.output) / "scores", device, job.threads)
        self._part = select(Part, job)
        self._part.check()
        source = open_source(newest, job.prefix, job.state, job.key)
        size = 4 * sum(info.count for info in source.tensors.values())
        source.close()
        self.at_once = max(1, min(_AT_ONCE, job.memory // max(1, size)))

    def bits(self, some: Sequence[Candidate]) -> list[list[float]]:
        """Bits of every document under each candidate; each checkpoint is read once."""
        used = sorted({at for candidate in some for at in candidate.window})
        weights = [[candidate.weights.get(at, 0.0) for at in used] for candidate in some]
        merges = averages([self._run.checkpoints[at] for at in used], weights, self._policy, self._part)
        mean_bytes = statistics.fmean(self._halves.sizes)
        bits = []
        for merge in merges:
            name = merge.content.rpartition(":")[2]
            self._scorer.score(name, lambda merge=merge: load_weights(self._model, merge.tensors))
            bits.append([value * mean_bytes for value in self._scorer.items(name)["text", "bits_per_byte"]])
        return bits


class Kept:
    """The scores of candidates on disk, a line each, by what decides them: text, checkpoints and weights."""

    def __init__(self, folder: Path, text: str, checkpoints: Mapping[int, Path]) -> None:
        self._path, self._text = folder / "candidates.jsonl", text
        self._stamps = {at: _stamp(path) for at, path in checkpoints.items()}
        rows = complete_lines(self._path) if self._path.is_file() else []
        self._bits: dict[str, list[float]] = {row["key"]: row["bits"] for row in map(json.loads, rows)}
        write_text(self._path, "".join(f"{row}\n" for row in rows))  # a kill can have left half a line

    def _key(self, candidate: Candidate) -> str:
        return hash_json([self._text, [[self._stamps[at], weight] for at, weight in candidate.weights.items()]])

    def __contains__(self, candidate: Candidate) -> bool:
        return self._key(candidate) in self._bits

    def __getitem__(self, candidate: Candidate) -> list[float]:
        return self._bits[self._key(candidate)]

    def add(self, candidate: Candidate, bits: Sequence[float]) -> None:
        """Write down the bits of every document."""
        assert all(math.isfinite(value) for value in bits)
        key = self._key(candidate)
        self._bits[key] = list(bits)
        row = {"key": key, "method": candidate.method, "n": candidate.n, "every": candidate.every}
        row |= {"window": list(candidate.window), "bits": [round(value, 4) for value in bits]}
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, separators=(",", ":")) + "\n")


def _stamp(checkpoint: Path) -> list[Any]:
    """What a checkpoint is known by: where it lies, and the size and time of its files."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file()) if checkpoint.is_dir() else [checkpoint]
    return [str(checkpoint.resolve()), [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]]
