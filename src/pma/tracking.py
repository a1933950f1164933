"""Where numbers go: metrics.jsonl always, W&B when wanted. The only module that imports wandb.

W&B never stops the work: what breaks costs one warning, and the files go on. `python -m pma.replay` sends later what
W&B does not have; both write down what was sent in wandb/sent.jsonl beside the runs, so that nothing is sent twice.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from pma.files import MANIFEST, complete_lines, read_manifest, revision, write_text
from pma.layout import list_by_tokens, snapshot_dir

WANDB = "wandb"  # folder of offline runs, beside the runs' own
_FINISH_SECONDS = 60  # a server that takes no more must not hold a finished run for long


@cache
def mode_of(requested: str) -> str:
    """offline | online | off, for those or auto: WANDB_MODE if set, else online when logged in."""
    if requested != "auto":
        return requested
    told = {"disabled": "off", "dryrun": "offline", "run": "online"}
    if mode := os.environ.get("WANDB_MODE"):
        return told.get(mode, mode)
    import wandb

    try:
        return "online" if wandb.login(prompt=False, verify=False) else "offline"
    except Exception:  # a key of the wrong form, a netrc that cannot be read
        return "offline"


@dataclass(frozen=True)
class Weights:
    """Weights as W&B's lineage shows them: by reference, not uploaded.

    Attributes:
        name: of the artifact; the same name and content are the same version.
        kind: snapshot | merge | model.
        uri: where they are.
        about: metadata: content hash, tokens, recipe.
    """

    name: str
    kind: str
    uri: str
    about: Mapping[str, Any]


def artifact_name(*parts: str) -> str:
    """A name that W&B takes."""
    return re.sub(r"[^\w.-]+", "-", "-".join(parts)).strip("-")[-128:]


def snapshot_artifact(run_folder: Path, tokens: int) -> Weights:
    """A snapshot of a run, or before its fork of the run it goes on from."""
    run = read_manifest(run_folder)
    if "continues" in run and tokens < run["continues"]["tokens"]:
        return snapshot_artifact(run_folder.with_name(run["continues"]["run"]), tokens)
    folder = snapshot_dir(run_folder, tokens)
    known = (folder / MANIFEST).is_file()  # published records come without the weights
    content = (
        read_manifest(folder).get("content") if known else None
    )  # nor did the first snapshots have a hash of theirs
    about = {"run": run_folder.name, "tokens": tokens, **({"content": content} if content else {})}
    uri = folder.resolve().as_uri() if known else f"pma://{run_folder.name}/{folder.name}"
    return Weights(artifact_name(run_folder.name, run["config_hash"], folder.name), "snapshot", uri, about)


def model_artifact(folder: Path, content: str | None = None) -> Weights:
    """Any model folder: a snapshot of a run as such, else by its path; with its content hash where that is known."""
    folder = folder.resolve()
    run = folder.parent.parent
    for tokens, path in list_by_tokens(folder.parent).items():
        if path == folder and (run / MANIFEST).is_file() and "config_hash" in read_manifest(run):
            return snapshot_artifact(run, tokens)
    manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else {}
    about = {
        k: v for k, v in (("content", content or manifest.get("content")), ("recipe", manifest.get("recipe"))) if v
    }
    kind = "merge" if "recipe" in manifest else "model"
    return Weights(artifact_name(folder.parent.name, folder.name), kind, folder.as_uri(), about)


class Run:
    """A W&B run that never fails its caller.

    Args:
        place: folder that holds WANDB, or gets it.
        tracking: mode (auto, online, offline, off), project, entity, tags.
        about: what wandb.init is told: id, name, group, job_type, tags, config.

    Attributes:
        mode: online | offline | off; off once something broke.
    """

    def __init__(self, place: Path, tracking: Any, **about: Any) -> None:
        self.mode, self._place, self._id = "off", place, about["id"]
        self._run: Any = None
        self._project = tracking.project
        about["tags"] = [*about.get("tags", []), *tracking.tags]
        about["config"] = {**about.get("config", {}), "revision": revision(), **_figures_and_claims(about["tags"])}
        wanted = mode_of(tracking.mode)
        if wanted != "off":
            self._safely(lambda: self._start(wanted, tracking, about))

    def _start(self, mode: str, tracking: Any, about: dict[str, Any]) -> None:
        import wandb

        self._place.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=tracking.project,
            entity=tracking.entity,
            mode=mode,
            dir=str(self._place),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", init_timeout=20),
            **about,
        )
        self.mode = mode
        self._run.define_metric("tokens")
        self._run.define_metric("*", step_metric="tokens")

    def _safely(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:
            _warn(error)
            self._run, self.mode = None, "off"

    def log(self, row: Mapping[str, Any]) -> None:
        """One row of metrics, with `tokens` in it."""
        if self._run is not None:
            # The step is the position, so that a resumed or replayed run falls on its own earlier rows.
            self._safely(lambda: self._run.log(dict(row), step=row["tokens"]))

    def image(self, name: str, path: Path) -> None:
        """A picture."""
        if self._run is not None:
            import wandb

            self._safely(lambda: self._run.log({name: wandb.Image(str(path))}))

    def table(self, name: str, table: Any) -> None:
        """A pandas table."""
        if self._run is not None:
            import wandb

            self._safely(lambda: self._run.log({name: wandb.Table(dataframe=table)}))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Single numbers of the whole run."""
        if self._run is not None:
            self._safely(lambda: self._run.summary.update(dict(values)))

    def used(self, weights: Sequence[Weights]) -> None:
        """Say that the run read these."""
        # use_artifact refuses to work offline, though what it calls knows how to write it down.
        self._artifacts(weights, lambda one: self._run._log_artifact(one, is_user_created=True, use_after_commit=True))

    def made(self, weights: Sequence[Weights], upload: Path | None = None) -> None:
        """Say that the run wrote these.

        Args:
            upload: folder whose files go to W&B with them; null uploads nothing.
        """
        self._artifacts(weights, lambda one: self._run.log_artifact(one), upload)

    def _artifacts(self, weights: Sequence[Weights], send: Callable[[Any], object], upload: Path | None = None) -> None:
        if self._run is None:
            return
        import wandb
        from wandb.sdk.artifacts.artifact_manifest_entry import ArtifactManifestEntry

        def step() -> None:
            for one in weights:
                artifact = wandb.Artifact(one.name, one.kind, metadata=dict(one.about))
                # add_reference would read every file again for a checksum of W&B's own; the content hash is one.
                digest = str(one.about.get("content", one.uri))
                artifact.manifest.add_entry(ArtifactManifestEntry(path="weights", digest=digest, ref=one.uri, size=0))
                if upload is not None:
                    artifact.add_dir(str(upload))
                send(artifact)

        self._safely(step)

    def finish(self, ok: bool = True, sent: str | None = None) -> None:
        """End the run.

        Args:
            sent: what was sent, to be written down (see `was_sent`).
        """
        if self._run is None:
            return
        run, self._run = self._run, None
        failed: list[Exception] = []

        def end() -> None:
            try:
                run.finish(exit_code=0 if ok else 1)
            except Exception as error:
                failed.append(error)

        thread = threading.Thread(target=end, daemon=True)
        thread.start()
        thread.join(_FINISH_SECONDS if self.mode == "online" else None)
        if failed or thread.is_alive():
            problem = failed[0] if failed else TimeoutError(f"not all sent within {_FINISH_SECONDS} s")
            _warn(problem)
        elif sent is not None:
            _write_down(self._place, self._project, self.mode, self._id, sent)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(kind is None)


def _warn(error: Exception) -> None:
    said = " ".join(f"{type(error).__name__}: {error}".split())
    print(f"W&B stopped ({said}); the files go on, python -m pma.replay sends them later", file=sys.stderr, flush=True)


def _figures_and_claims(tags: Sequence[str]) -> dict[str, list[str]]:
    claims = [tag for tag in tags if tag[:1] == "C" and tag[1:].isdigit()]
    return {"figures": [tag for tag in tags if tag not in claims], "claims": claims} if tags else {}


# ---- what was sent ---------------------------------------------------------------------------------------------------


def _ledger(place: Path) -> Path:
    return place / WANDB / "sent.jsonl"


def _write_down(place: Path, project: str, mode: str, run_id: str, what: str) -> None:
    line = json.dumps({"project": project, "mode": mode, "id": run_id, "sent": what}) + "\n"
    with open(_ledger(place), "a", encoding="utf-8") as file:  # one write of a short line: processes do not mix
        file.write(line)


def sent_before(place: Path, project: str, mode: str) -> dict[str, str]:
    """What was sent of each run, by id, to a project in a mode: the last word of the ledger."""
    if not _ledger(place).is_file():
        return {}
    rows = map(json.loads, complete_lines(_ledger(place)))
    return {row["id"]: row["sent"] for row in rows if (row["project"], row["mode"]) == (project, mode)}


# ---- a training run --------------------------------------------------------------------------------------------------


class Tracker:
    """Writes metrics of one training run (or one that is watched); tokens are the step axis.

    Args:
        folder: the run's folder; metrics.jsonl lies there.
        resume_tokens: position the run goes on from; later lines of an earlier try are dropped.
        tracking, run: as of `Run`.
    """

    def __init__(self, folder: Path, resume_tokens: int, tracking: Any, **run: Any) -> None:
        self._path = folder / "metrics.jsonl"
        if self._path.exists():
            kept = [line for line in complete_lines(self._path) if json.loads(line)["tokens"] <= resume_tokens]
            write_text(self._path, "".join(line + "\n" for line in kept))
        self._file = open(self._path, "a", encoding="utf-8")
        self._run = Run(folder.parent, tracking, **run)

    def log(self, tokens: int, **metrics: float) -> None:
        """Write one row of metrics after `tokens` tokens."""
        row = {"tokens": tokens, **metrics}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._run.log(row)

    def made(self, weights: Sequence[Weights]) -> None:
        """Say which snapshots the run wrote."""
        self._run.made(weights)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._run.finish(kind is None, sent=str(len(complete_lines(self._path))))
