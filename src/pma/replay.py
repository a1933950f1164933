"""Send to W&B what it does not have yet: runs from metrics.jsonl; merges, scores, figures and claims from records.

    python -m pma.replay scale=cpu tracking.mode=offline          # into runs/cpu, for `wandb sync` or LEET
    python -m pma.replay scale=cpu published=true tracking.project=NAME tracking.mode=online

Each step becomes a W&B run: training (job_type train); each merge (merge), with its N snapshots as inputs and the
merged model as output; the scores of an experiment's merges (eval), with these merges as inputs; the figure with its
claims (analysis). Training runs go into runs/SCALE/wandb, where training itself puts them; all others into
runs/SCALE/scores/wandb: LEET lists the newest first, and some two hundred runs of one dot would bury the curves.

Experiments are found by their manifests, so a study of your own is sent too. Nothing is trained,
merged or scored, and a second call sends nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from pma import cli
from pma.config import ROOT, TrackingConfig, hash_json
from pma.json_files import MANIFEST, read_manifest, read_rows
from pma.layout import snapshots
from pma.merge.weights import method_weights
from pma.tracking import WANDB, Run, Weights, mode_of, sent_before, snapshot_artifact
from pma.words import duration

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class ReplayJob:
    """Everything `python -m pma.replay` reads."""

    scale: str = "cpu"
    experiment: str | None = None  # one group only: figure_4, or a run's own; null: all
    published: bool = False  # the records that come with the repository, instead of your own
    runs_dir: str = "runs"
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


_SCORES = "scores"  # folder of W&B runs that are no training
_MERGE = ["run", "seed", "tokens", "method", "n", "interval"]


@dataclass(frozen=True)
class Step:
    """One W&B run to send.

    Attributes:
        settings: arguments of wandb.init.
        rows: metrics, each with `tokens`.
        inputs, outputs: weights that it read and wrote.
        pictures, tables: by name.
    """

    settings: dict[str, Any]
    rows: Sequence[dict[str, Any]] = ()
    inputs: Sequence[Weights] = ()
    outputs: Sequence[Weights] = ()
    pictures: dict[str, Path] | None = None
    tables: dict[str, pd.DataFrame] | None = None

    def place(self, root: Path) -> Path:
        """The folder whose wandb/ holds the W&B run."""
        return root if self.settings["job_type"] == "train" else root / _SCORES

    @property
    def sent(self) -> str:
        """The note in the ledger once it is sent: it changes where anything to send changes."""
        if self.settings["job_type"] == "train":
            return str(len(self.rows))
        names = [(weights.name, weights.about.get("content")) for weights in (*self.inputs, *self.outputs)]
        pictures = {name: path.stat().st_size for name, path in (self.pictures or {}).items()}
        tables = {name: table.to_csv(index=False) for name, table in (self.tables or {}).items()}
        return hash_json([list(self.rows), names, pictures, tables])


# ---- what there is to send -------------------------------------------------------------------------------------------


def merged(folder: Path, row: dict[str, Any]) -> tuple[Weights, list[Weights]]:
    """A merge in the records as an artifact, and the snapshots that it is a mean of: one, where nothing was merged.

    Args:
        folder: of the run.
        row: of the records: method, n, interval, tokens.
    """
    n, end, interval = row["n"], row["tokens"], row["interval"]
    before, _, last = row["method"].rpartition("_")  # of ema_0.1, say
    method, alpha = (before, float(last)) if before else (last, None)
    if method == "online_ema":
        average = snapshot_artifact(folder, end, alpha)
        return average, [average]
    sources = [snapshot_artifact(folder, end - (n - 1 - i) * interval) for i in range(n)]
    if method == "last":
        return sources[-1], sources
    weights = method_weights(method, n, alpha)
    config_hash = read_manifest(folder, "config_hash")["config_hash"]
    name = f"{folder.name}-{config_hash}-{row['method']}-n{n}-v{interval}-tokens-{end:015d}"
    recipe = {"method": row["method"], "n": n, "interval": interval, "tokens": end}
    named = [{"snapshot": source.name, "weight": weight} for source, weight in zip(sources, weights, strict=True)]
    # It was merged in memory and scored there. Its address is its recipe, and any tool can make it again.
    content = hash_json([named, [source.about.get("content") for source in sources]])
    return Weights(name, "merge", f"pma://{name}", {**recipe, "sources": named, "content": content}), sources


def labels(root: Path) -> dict[str, list[str]]:
    """Experiments and claims that each run below a folder serves, from the manifests of the experiments there."""
    tags: dict[str, list[str]] = {}
    for path in sorted(root.glob(f"*/{MANIFEST}")):
        manifest = read_manifest(path.parent)
        for run in manifest["runs"] if "experiment" in manifest else ():
            experiment = manifest["experiment"]
            tags[run] = list(dict.fromkeys([*tags.get(run, []), experiment["name"], *experiment["claims"]]))
    return tags


def training_steps(root: Path) -> Iterator[Step]:
    """Training runs below a folder."""
    import yaml

    tags = labels(root)
    for path in sorted(root.glob(f"*-seed*/{MANIFEST}")):
        folder, manifest = path.parent, read_manifest(path.parent)
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        settings = {
            "id": f"{folder.name}-{manifest['config_hash']}",
            "name": folder.name,
            "group": config.get("group") or tags.get(folder.name, [config["run_name"]])[0],
            "job_type": "train",
            "tags": config["tracking"].get("tags") or tags.get(folder.name, []),
            "config": {**{k: v for k, v in config.items() if k != "tracking"}, **manifest},
        }
        metrics = folder / "metrics.jsonl"
        rows = read_rows(metrics, "tokens")
        yield Step(settings, rows, outputs=[snapshot_artifact(folder, tokens) for tokens in snapshots(folder)])


def experiment_steps(root: Path, pictures: Path, claims: pd.DataFrame | None) -> Iterator[Step]:
    """Merges, scores and figures of the experiments below a folder.

    Args:
        pictures: folder with NAME.png of each experiment, as analysis/draw.py makes them.
        claims: claims.csv, where the claims have been judged.
    """
    for path in sorted(root.glob(f"*/{MANIFEST}")):
        manifest = read_manifest(path.parent)
        if "experiment" in manifest:
            yield from _merges_and_scores(root, path.parent, manifest)
            yield from _figure(path.parent, manifest, pictures, claims)


def _settings(folder: Path, manifest: dict[str, Any], job: str, name: str) -> dict[str, Any]:
    experiment = manifest["experiment"]
    return {
        "id": hash_json([manifest["stamp"], job, name]),
        "name": name,
        "group": experiment["name"],
        "job_type": job,
        "tags": [experiment["name"], *experiment["claims"]],
        "config": {"experiment": experiment, "runs": manifest["runs"], "scale": _scale(folder)},
    }


def _scale(folder: Path) -> str:
    parent = folder.parent
    return parent.parent.name if parent.name == "published" else parent.name


def _merges_and_scores(root: Path, folder: Path, manifest: dict[str, Any]) -> Iterator[Step]:
    from pma.records import read_records

    if not (folder / "records.csv").is_file():
        return
    records, name = read_records(folder / "records.csv"), folder.name
    for (run, seed), part in records.groupby(["run", "seed"], sort=False):
        run_folder = root / f"{run}-seed{seed}"
        used: dict[str, Weights] = {}
        rows: dict[int, dict[str, Any]] = {}
        for keys, scores in part.groupby(_MERGE, sort=False):
            row = dict(zip(_MERGE, keys, strict=True))
            weights, sources = merged(run_folder, row)
            if weights.kind == "merge" and weights.name not in used:
                settings = _settings(folder, manifest, "merge", f"{name}/{weights.name}")
                yield Step(settings, inputs=sources, outputs=[weights])
            used[weights.name] = weights
            curve = "raw" if row["method"] == "last" else f"{row['method']}-n{row['n']}-v{row['interval']}"
            values = {f"{s.suite}/{s.task}/{s.metric}/{curve}": s.value for s in scores.itertuples()}
            tokens = int(row["tokens"])
            rows.setdefault(tokens, {"tokens": tokens}).update(values)
        settings = _settings(folder, manifest, "eval", f"{name}/{run_folder.name}")
        settings["config"] |= {"run": run, "seed": int(seed)}  # by which a chart takes the mean over seeds
        yield Step(settings, [rows[tokens] for tokens in sorted(rows)], inputs=list(used.values()))


def _figure(folder: Path, manifest: dict[str, Any], pictures: Path, claims: pd.DataFrame | None) -> Iterator[Step]:
    from pma.records import read_records

    drawn = {folder.name: path} if (path := pictures / f"{folder.name}.png").is_file() else {}
    tables = {}
    if (path := folder / "records.csv").is_file():
        tables["records"] = read_records(path)
    if claims is not None and not (part := claims[claims["claim"].isin(manifest["experiment"]["claims"])]).empty:
        tables["claims"] = part.astype(object).where(part.notna(), None)
    yield Step(_settings(folder, manifest, "analysis", folder.name), pictures=drawn, tables=tables)


# ---- sending ---------------------------------------------------------------------------------------------------------


def send(step: Step, place: Path, tracking: Any) -> bool:
    """Send one W&B run; False where W&B broke."""
    run = Run(place, tracking, **step.settings)
    for row in step.rows:
        run.log(row)
    run.used(step.inputs)
    run.made(step.outputs)
    for name, path in (step.pictures or {}).items():
        run.image(name, path)
    for name, table in (step.tables or {}).items():
        run.table(name, table)
    whole = run.mode == mode_of(tracking.mode)
    run.finish(sent=step.sent)
    return whole


def replay(job: DictConfig) -> int:
    """Send what was not sent before.

    Returns:
        Number of W&B runs sent.

    Raises:
        ValueError: when nothing is recorded at this scale, or W&B breaks.
    """
    import pandas as pd
    from tqdm import tqdm

    if (mode := mode_of(job.tracking.mode)) == "off":
        print("W&B: off, nothing was sent")
        return 0
    place = Path(job.runs_dir) / job.scale
    root = place / "published" if job.published else place
    out = ROOT / "analysis" / "out" / job.scale / ("published" if job.published else "")
    table = root / "claims.csv" if job.published else out / "claims.csv"
    # The run that serves most experiments goes last: it is the newest, which LEET shows first.
    steps = sorted(training_steps(root), key=lambda step: len(step.settings["tags"]))
    steps += experiment_steps(root, out, pd.read_csv(table) if table.is_file() else None)
    if job.experiment is not None:
        steps = [step for step in steps if step.settings["group"] == job.experiment]
    if not steps:
        raise ValueError(f"{root}: nothing recorded there; make reproduce SCALE={job.scale}, or published=true")
    before: dict[str, str] = {}
    for folder in (place, place / _SCORES):
        before |= sent_before(folder, job.tracking.project, mode)
    todo = [step for step in steps if before.get(step.settings["id"]) != step.sent]
    began = time.perf_counter()
    for done, step in enumerate(tqdm(todo, desc=f"W&B, {mode}", unit="run", leave=False, disable=None)):
        if not send(step, step.place(place), job.tracking):
            raise ValueError(f"W&B stopped after {done} runs; call again to send the rest")
    sent = f"{len(todo)} new, {len(steps) - len(todo)} there already, {duration(time.perf_counter() - began)}"
    if mode == "offline":
        how = "docs/reading-results.md says how to see them without an account"
        folders = f"training curves as offline runs in {place / WANDB}, scores in {place / _SCORES / WANDB}"
        print(f"W&B: {folders} ({sent}); {how}")
    else:
        print(f"W&B: training curves and scores sent to project {job.tracking.project} ({sent})")
    return len(todo)


def main(job: DictConfig) -> None:
    """Entry point of `python -m pma.replay`."""
    replay(job)


def command() -> None:
    """The console script."""
    cli.run(main, ReplayJob, "replay", "command")


if __name__ == "__main__":
    command()
