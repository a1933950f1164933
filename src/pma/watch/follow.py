"""Follow a live run and keep its merge up to date: what annealing now would give, beside every checkpoint.

python -m pma.watch run_dir=DIR output=OUT 'recipes=[{method: sma, n: 10}]' suite=proxy corpus=DIR

The run may be anybody's: folders checkpoint-N (Hugging Face Trainer), step-N (torchtitan), iter_N (Megatron) or ours,
in run_dir, run_dir/snapshots or run_dir/checkpoints. OUT holds metrics.jsonl (one row a checkpoint, which is also what
a restart goes on from), records.csv, and merged/RECIPE/NAME.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import DictConfig

from pma import cli
from pma.device import choose_device
from pma.files import MANIFEST, publish_folder, write_json
from pma.merge import Merge, Options, Policy, average, merge_all, method_weights
from pma.merge.formats import DCP, open_source
from pma.merge.write import assets
from pma.records import Record, write_records
from pma.tracking import Tracker

_NAME = re.compile(r"(?:checkpoint|step|tokens|global_step|iter)[-_]?(\d+)")
_PLACES = ("snapshots", "checkpoints", ".")
_QUIET = 10.0  # seconds without a change, for writers that do not say when they are done


def positions(run_dir: Path) -> dict[int, Path]:
    """Checkpoint folders of a run by position (steps or tokens, as its names count), ascending, complete or not."""
    for place in _PLACES:
        found = {
            int(match[1]): path
            for path in (run_dir / place).glob("*")
            if path.is_dir() and (match := _NAME.fullmatch(path.name))
        }
        if found:
            return dict(sorted(found.items()))
    return {}


def complete(folder: Path) -> bool:
    """Whether the trainer has written all of a checkpoint.

    Ours appear whole. DCP writes .metadata last, the Hugging Face Trainer trainer_state.json; for others the headers
    must promise no more than is there, and nothing may have changed for 10 seconds.
    """
    if (folder / MANIFEST).is_file():
        return True
    if (folder / DCP).is_file():
        return True
    state = folder / "trainer_state.json"
    if state.is_file():
        try:
            json.loads(state.read_text(encoding="utf-8"))
        except ValueError:
            return False
        return _opens(folder)
    newest = max((path.stat().st_mtime for path in folder.glob("*")), default=time.time())
    return time.time() - newest > _QUIET and _opens(folder)


def _opens(folder: Path) -> bool:
    try:
        open_source(folder).close()
    except (ValueError, OSError):
        return False
    return True


@dataclass(frozen=True)
class Recipe:
    """A sliding window of the last n checkpoints, or (ema with n null) the running EMA over all of them."""

    method: str
    n: int | None
    alpha: float | None

    @property
    def name(self) -> str:
        """As in folders and records: sma_10, ema_0.2."""
        return "_".join(str(part) for part in (self.method, self.alpha, self.n) if part is not None)

    @property
    def running(self) -> bool:
        """Whether only the newest checkpoint has to be read: avg_i = alpha M_i + (1 - alpha) avg_{i-1} is exact."""
        return self.n is None


def _recipe(cfg: DictConfig) -> Recipe:
    if cfg.n is None and cfg.method != "ema":
        raise ValueError(f"recipes: {cfg.method} needs n; only ema runs without a window")
    method_weights(cfg.method, cfg.n or 2, cfg.alpha)  # refuses what no method has
    return Recipe(cfg.method, cfg.n, cfg.alpha)


class Watch:
    """The state of one `python -m pma.watch`.

    Raises:
        ValueError: for a folder that is not there, recipes that are none, or a suite without what it needs.
    """

    def __init__(self, job: DictConfig) -> None:
        self.job = job
        self.run_dir, self.output = Path(job.run_dir), Path(job.output)
        if not self.run_dir.is_dir():
            raise ValueError(f"run_dir={job.run_dir}: no such folder; give the folder that the trainer writes into")
        self.recipes = [_recipe(recipe) for recipe in job.recipes]
        if not self.recipes:
            raise ValueError("recipes: give at least one, as recipes=[{method: sma, n: 10}]")
        if job.keep < 0 or job.poll <= 0 or job.tokens_per_step < 1:
            raise ValueError("keep, poll, tokens_per_step: give at least 0, more than 0 seconds, and at least 1")
        if job.suite not in (None, "paper") and job.corpus is None:
            raise ValueError(
                f"suite={job.suite}: give corpus=DIR, the folder with its items, or suite=null to only merge"
            )
        self.options = Options(dtype=job.dtype, threads=job.threads, assets=job.assets)
        self.options.check()
        self.policy = Policy(suspicious=job.suspicious)
        self.policy.check()
        self.rows = self._past_rows()
        self.failures: dict[int, int] = {}
        self._suite: Any = None
        if job.suite is not None:
            from pma.evaluate import load_suite

            self._suite = load_suite(job.suite, job.corpus and Path(job.corpus), job.limit)
        self._scorer: Any = None

    def _past_rows(self) -> list[dict[str, Any]]:
        path = self.output / "metrics.jsonl"
        if not path.is_file():
            return []
        text = path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    # ---- what is there ----

    def sources(self) -> dict[int, Path]:
        """Complete checkpoints, those held for us among them, by position."""
        held = {int(path.name): path for path in (self.output / "held").glob("*") if path.name.isdigit()}
        live = {at: path for at, path in positions(self.run_dir).items() if complete(path)}
        return dict(sorted((live | held).items()))

    def todo(self, sources: dict[int, Path]) -> list[int]:
        """Positions not worked on yet, oldest first; one that failed three times is left alone."""
        done = max((row["position"] for row in self.rows), default=-1)
        return [at for at in sources if at > done and self.failures.get(at, 0) < 3]

    # ---- one checkpoint ----

    def try_step(self, at: int, sources: dict[int, Path], tracker: Tracker) -> None:
        """`step`; a checkpoint that the trainer deletes meanwhile, or that holds NaN, does not end the watch."""
        try:
            self.step(at, sources, tracker)
        except cli.ERRORS as error:
            self.failures[at] = self.failures.get(at, 0) + 1
            print(f"{at}: {cli.message(error)}", flush=True)

    def step(self, at: int, sources: dict[int, Path], tracker: Tracker) -> None:
        """Bring every recipe up to date with the checkpoint at `at`, score, write, and say what came out."""
        began = time.perf_counter()
        if self.job.hold:
            self._hold(at, sources)
        made = {recipe: self._merge(recipe, at, sources) for recipe in self.recipes}
        row: dict[str, Any] = {"position": at}
        records = []
        if self.job.suite is not None:
            raw = self._scores(sources[at])
            records += self._records("last", 1, at, raw)
            row |= {f"raw/{task}/{metric}": s.value for (task, metric), s in raw.items()}
            for recipe, (folder, n) in made.items():
                scores = self._scores(folder)
                records += self._records(recipe.name, n, at, scores)
                for key, score in scores.items():
                    row[f"{recipe.name}/{'/'.join(key)}"] = score.value
                    row[f"{recipe.name}/gain/{'/'.join(key)}"] = score.value - raw[key].value
        self._append_records(records)
        tracker.log(at * self.job.tokens_per_step, **row)
        self.rows.append(row)
        self._prune(at, sources)
        self._say(at, made, row, time.perf_counter() - began)

    def _window(self, recipe: Recipe, at: int, sources: dict[int, Path]) -> list[int]:
        return [position for position in sources if position <= at][-recipe.n :]

    def _folder(self, recipe: Recipe, at: int) -> Path:
        return self.output / "merged" / recipe.name / f"{at:012d}"

    def _merge(self, recipe: Recipe, at: int, sources: dict[int, Path]) -> tuple[Path, int]:
        target = self._folder(recipe, at)
        before = sorted(path for path in target.parent.glob("[0-9]*") if path.name < target.name)
        if recipe.running:
            names = [*before[-1:], sources[at]]
            weights = method_weights("ema", len(names), recipe.alpha)
        else:
            names = [sources[position] for position in self._window(recipe, at, sources)]
            weights = method_weights(recipe.method, len(names), recipe.alpha)
        if not target.exists():  # else a kill came between the merge and its row
            told = {"method": recipe.method, "alpha": recipe.alpha, "n": recipe.n, "end": at}
            # A running mean is rounded again at every step, so it is kept in fp32 whatever is asked for.
            options = Options(**{**vars(self.options), "dtype": "float32"}) if recipe.running else self.options
            merge_all(names, [Merge(tuple(weights), target, told)], options, self.policy)
        return target, len(names)

    def _hold(self, at: int, sources: dict[int, Path]) -> None:
        """Hard links to a checkpoint's weights, so that the trainer may delete its own."""
        final = self.output / "held" / str(at)
        if final.exists():
            return
        source = open_source(sources[at])
        files = [*source.files(), *assets(source, None)]
        files += [index for index in sources[at].glob("*.index.json")]
        source.close()
        with publish_folder(final) as aside:
            for path in files:
                try:
                    os.link(path, aside / path.name)
                except OSError:  # another file system
                    shutil.copyfile(path, aside / path.name)
        sources[at] = final

    def _prune(self, at: int, sources: dict[int, Path]) -> None:
        for recipe in self.recipes:
            folders = sorted(self._folder(recipe, at).parent.glob("[0-9]*"))
            kept = max(self.job.keep, 1 if recipe.running else 0)
            for folder in folders[: len(folders) - kept]:
                shutil.rmtree(folder)
        needed = set().union(*(self._window(r, at, sources) for r in self.recipes if not r.running), {at})
        for path in (self.output / "held").glob("[0-9]*"):
            if int(path.name) not in needed and int(path.name) < at:
                shutil.rmtree(path)

    # ---- scores ----

    def _scores(self, folder: Path) -> dict[tuple[str, str], Any]:
        from pma.model.build import load_weights
        from pma.snapshot import content_of

        if self._scorer is None:
            self._load_scorer(folder)
        name = content_of(folder).rpartition(":")[2]
        scores = self._scorer.score(name, lambda: load_weights(self._model, average([folder], [1.0])))
        return {(score.task, score.metric): score for score in scores}

    def _load_scorer(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        from pma.evaluate import Scorer
        from pma.model.build import load_pretrained

        self._model = load_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(self.job.assets or folder, local_files_only=True)
        cache = self.output / "scores"
        device = choose_device(self.job.device)
        self._scorer = Scorer(self._suite, self._model, tokenizer, cache, device, self.job.threads)

    def _records(self, method: str, n: int, at: int, scores: dict[tuple[str, str], Any]) -> list[Record]:
        about = {"scale": "watch", "experiment": "watch", "run": self.run_dir.resolve().name, "seed": 0}
        about |= {"tokens": at * self.job.tokens_per_step, "method": method, "n": n, "interval": 0}
        about |= {"suite": self.job.suite, "config_hash": ""}
        return [Record(**about, task=s.task, metric=s.metric, value=s.value, stderr=s.stderr) for s in scores.values()]

    def _append_records(self, records: list[Record]) -> None:
        import pandas as pd

        path = self.output / "records.csv"
        if not records:
            return
        if path.is_file():
            past = [Record(**row) for row in pd.read_csv(path).to_dict("records")]
            at = records[0].tokens
            records = [record for record in past if record.tokens < at] + records
        write_records(path, records)

    def _best(self, key: str) -> float:
        """Best value of a metric up to now."""
        better = min if "bits_per_byte" in key else max
        return better(row[key] for row in self.rows if key in row)

    def _say(self, at: int, made: dict[Recipe, tuple[Path, int]], row: dict[str, Any], seconds: float) -> None:
        for recipe, (folder, n) in made.items():
            keys = [key for key in row if key.startswith(f"{recipe.name}/average")]
            told = "; ".join(
                f"{key.split('/', 1)[1]} {row[key]:.4f} expected of annealing from here, "
                f"{row[key] - row['raw/' + key.split('/', 1)[1]]:+.4f} over the checkpoint, "
                f"best so far {self._best(key):.4f}"
                for key in keys
            )
            print(f"{at}: {recipe.name} of {n} checkpoints, {seconds:.1f} s{': ' + told if told else ''}", flush=True)
            if not told and folder.exists():
                print(f"  {folder}", flush=True)


def follow(job: DictConfig) -> None:
    """Keep the merges of a run up to date: until interrupted, or for job.idle seconds without anything new.

    Raises:
        ValueError: for impossible options, before anything is waited for.
    """
    watch = Watch(job)
    watch.output.mkdir(parents=True, exist_ok=True)
    stop = _Stop()
    last = max((row["position"] for row in watch.rows), default=-1)
    told = {"run_dir": str(watch.run_dir.resolve()), "recipes": [recipe.name for recipe in watch.recipes]}
    write_json(watch.output / "watch.json", told)
    print(f"watching {watch.run_dir} every {job.poll:g} s" + (f", from {last} on" if last >= 0 else ""), flush=True)
    name = f"watch-{watch.run_dir.resolve().name}"
    run = {"id": name, "name": name, "group": job.group or watch.run_dir.resolve().name, "job_type": "eval"}
    quiet_since = time.monotonic()
    with Tracker(watch.output, last * job.tokens_per_step, job.tracking, tags=["watch"], config=told, **run) as tracker:
        while not stop.asked:
            sources = watch.sources()
            for at in watch.todo(sources):
                watch.try_step(at, sources, tracker)
                quiet_since = time.monotonic()
                if stop.asked:
                    break
            if job.idle is not None and time.monotonic() - quiet_since > job.idle:
                print(f"nothing new for {job.idle:g} s; done", flush=True)
                return
            stop.sleep(job.poll)


class _Stop:
    """Ctrl-C and SIGTERM: finish the checkpoint at hand, then leave."""

    def __init__(self) -> None:
        self.asked = False
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.asked and time.monotonic() < until:
            time.sleep(min(0.2, seconds))
