"""Where metrics go: into metrics.jsonl always, to W&B if you track there. The only module that imports wandb.

W&B never stops the work: when it breaks you get one warning, and the files are still written. `python -m pma.replay`
sends later what W&B does not have. Both note in wandb/sent.jsonl, beside the runs, what was sent, so that nothing is
sent twice.
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

from pma.files import append_line, revision, write_text
from pma.json_files import MANIFEST, complete_lines, read_manifest, read_rows
from pma.layout import average_dir, list_by_tokens, snapshot_dir

WANDB = "wandb"  # folder of offline runs, beside the runs' own
_FINISH_SECONDS = 60  # a server that no longer answers must not hold up a finished run
_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)")  # a model of the Hugging Face hub


@cache
def mode_of(requested: str) -> str:
    """Resolve auto: WANDB_MODE if it is set, else online when you are logged in, else offline; off without wandb.

    Returns:
        offline | online | off.
    """
    if requested != "auto":
        return requested
    synonyms = {"disabled": "off", "dryrun": "offline", "run": "online"}
    if mode := os.environ.get("WANDB_MODE"):
        return synonyms.get(mode, mode)
    try:
        import wandb

        return "online" if wandb.login(prompt=False, verify=False) else "offline"
    except ModuleNotFoundError:
        return "off"
    except Exception:  # a key of the wrong form, a netrc that cannot be read
        return "offline"


@dataclass(frozen=True)
class Weights:
    """Weights in W&B's lineage: a reference to where they lie, not an upload.

    Attributes:
        name: of the artifact; the same name and content are the same version.
        kind: snapshot | merge | model.
        uri: file:///FOLDER, hf://REPO@REVISION of the hub, or pma://RUN/SNAPSHOT where only the records are here.
        about: metadata: content hash, tokens, recipe.
    """

    name: str
    kind: str
    uri: str
    about: Mapping[str, Any]


def artifact_name(*parts: str) -> str:
    """The parts as a name that W&B accepts: letters, digits, `_.-`, at most 128."""
    return re.sub(r"[^\w.-]+", "-", "-".join(parts)).strip("-")[-128:]


def snapshot_artifact(run_folder: Path, tokens: int, alpha: float | None = None) -> Weights:
    """A snapshot of a run. Below the position of a fork it is a snapshot of the run that was forked.

    Args:
        tokens: of the snapshot.
        alpha: of the average of every step that it is a snapshot of; None: of the weights.
    """
    run = read_manifest(run_folder, "config_hash")
    if "continues" in run and tokens < run["continues"]["tokens"]:
        return snapshot_artifact(run_folder.with_name(run["continues"]["run"]), tokens)
    folder, of = snapshot_dir(run_folder, tokens), []
    if alpha is not None:
        folder = average_dir(run_folder, alpha, tokens)
        of = [folder.parent.name]
    metadata: dict[str, Any] = {"run": run_folder.name, "tokens": tokens}
    uri = "/".join([f"pma://{run_folder.name}", *of, folder.name])
    if (folder / MANIFEST).is_file():  # published records come without the weights
        uri = folder.resolve().as_uri()
        if content := read_manifest(folder).get("content"):  # the first snapshots had no hash
            metadata["content"] = content
    return Weights(artifact_name(run_folder.name, run["config_hash"], *of, folder.name), "snapshot", uri, metadata)


def model_artifact(source: Path, content: str | None = None) -> Weights:
    """A model as an artifact: a snapshot of a run, another folder, or `repo@revision` of the Hugging Face hub.

    Args:
        content: hash of the weights, where it is known and no manifest beside them says it.
    """
    if not source.exists() and (hub := _HUB.fullmatch(source.as_posix())):
        name = artifact_name(hub["repo"].replace("/", "-"), hub["revision"])
        return Weights(name, "model", f"hf://{source.as_posix()}", {"content": content} if content else {})
    folder = source.resolve()
    run = folder.parent.parent
    for tokens, path in list_by_tokens(folder.parent).items():
        if path == folder and (run / MANIFEST).is_file() and "config_hash" in read_manifest(run):
            return snapshot_artifact(run, tokens)
    manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else {}
    metadata = {"content": content or manifest.get("content"), "recipe": manifest.get("recipe")}
    known = {key: value for key, value in metadata.items() if value}
    kind = "merge" if "recipe" in manifest else "model"
    return Weights(artifact_name(folder.parent.name, folder.name), kind, folder.as_uri(), known)


class Run:
    """A W&B run that never fails its caller.

    Args:
        place: folder that holds WANDB, or gets it.
        tracking: mode (auto, online, offline, off), project, entity, tags.
        settings: arguments of wandb.init: id, name, group, job_type, tags, config.

    Attributes:
        mode: online | offline | off; off once something broke.
    """

    def __init__(self, place: Path, tracking: Any, **settings: Any) -> None:
        self.mode = "off"
        self._run: Any = None
        self._place, self._project, self._id = place, tracking.project, settings["id"]
        tags = [*settings.get("tags", []), *tracking.tags]
        config = {**settings.get("config", {}), "revision": revision(), **_figures_and_claims(tags)}
        if (mode := mode_of(tracking.mode)) != "off":
            self._safely(lambda: self._start(mode, tracking, {**settings, "tags": tags, "config": config}))

    def _start(self, mode: str, tracking: Any, settings: dict[str, Any]) -> None:
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
            **settings,
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
        """Record weights as inputs of the run."""
        # use_artifact refuses to work offline, though the function that it calls works.
        self._artifacts(
            weights, lambda artifact: self._run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
        )

    def made(self, weights: Sequence[Weights], upload: Path | None = None) -> None:
        """Record weights as outputs of the run.

        Args:
            upload: folder whose files go to W&B with them; None uploads nothing.
        """
        self._artifacts(weights, lambda artifact: self._run.log_artifact(artifact), upload)

    def _artifacts(self, weights: Sequence[Weights], send: Callable[[Any], object], upload: Path | None = None) -> None:
        if self._run is None:
            return
        import wandb
        from wandb.sdk.artifacts.artifact_manifest_entry import ArtifactManifestEntry

        def step() -> None:
            for entry in weights:
                artifact = wandb.Artifact(entry.name, entry.kind, metadata=dict(entry.about))
                # add_reference would read each file again for a checksum of its own; the content hash is a checksum.
                digest = str(entry.about.get("content", entry.uri))
                reference = ArtifactManifestEntry(path="weights", digest=digest, ref=entry.uri, size=0)
                artifact.manifest.add_entry(reference)
                if upload is not None:
                    artifact.add_dir(str(upload))
                send(artifact)

        self._safely(step)

    def finish(self, ok: bool = True, sent: str | None = None) -> None:
        """End the run.

        Args:
            sent: a note of what was sent, for the ledger (see `sent_before`).
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
            _note(self._place, self._project, self.mode, self._id, sent)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(kind is None)


def _warn(error: Exception) -> None:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    print(
        f"W&B stopped ({reason}); the files are still written, and python -m pma.replay sends them later",
        file=sys.stderr,
        flush=True,
    )


def _figures_and_claims(tags: Sequence[str]) -> dict[str, list[str]]:
    claims = [tag for tag in tags if tag[:1] == "C" and tag[1:].isdigit()]
    return {"figures": [tag for tag in tags if tag not in claims], "claims": claims} if tags else {}


# ---- the ledger of what was sent -------------------------------------------------------------------------------------


def _ledger(place: Path) -> Path:
    return place / WANDB / "sent.jsonl"


def _note(place: Path, project: str, mode: str, run_id: str, sent: str) -> None:
    line = json.dumps({"project": project, "mode": mode, "id": run_id, "sent": sent}) + "\n"
    with open(_ledger(place), "a", encoding="utf-8") as file:  # one write of a short line: processes do not mix
        file.write(line)


def sent_before(place: Path, project: str, mode: str) -> dict[str, str]:
    """The latest note of what was sent of each run, by its id, to a project in a mode."""
    if not _ledger(place).is_file():
        return {}
    rows = map(json.loads, complete_lines(_ledger(place)))
    return {row["id"]: row["sent"] for row in rows if (row["project"], row["mode"]) == (project, mode)}


# ---- a training run --------------------------------------------------------------------------------------------------


class Tracker:
    """Writes metrics of one training run (or one that is watched); tokens are the step axis.

    Args:
        folder: the run's folder; metrics.jsonl lies there.
        resume_tokens: position the run resumes from; lines after it, of an earlier attempt, are dropped.
        tracking, run: as of `Run`.
    """

    def __init__(self, folder: Path, resume_tokens: int, tracking: Any, **run: Any) -> None:
        self._path = folder / "metrics.jsonl"
        if self._path.exists():
            kept = [row for row in read_rows(self._path, tokens=int) if row["tokens"] <= resume_tokens]
            write_text(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        self._path.touch()
        self._run = Run(folder.parent, tracking, **run)

    def log(self, tokens: int, **metrics: float) -> None:
        """Write one row of metrics after `tokens` tokens."""
        row = {"tokens": tokens, **metrics}
        append_line(self._path, json.dumps(row))
        self._run.log(row)

    def made(self, weights: Sequence[Weights]) -> None:
        """Record which snapshots the run wrote."""
        self._run.made(weights)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run.finish(kind is None, sent=str(len(complete_lines(self._path))))
