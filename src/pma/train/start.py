"""Where a run starts: fresh, from its own newest checkpoint, from given weights, or from a parent run."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from omegaconf import DictConfig
from transformers import PreTrainedModel

from pma.config import require_part, validate
from pma.json_files import MANIFEST, read_rows
from pma.layout import checkpoints, run_window, trajectory
from pma.merge import average
from pma.merge.weights import sma
from pma.model.build import copy_parameters, load_pretrained, load_weights
from pma.run import is_fork, parent_folder, run_folder
from pma.train.checkpoint import load_checkpoint, load_optimizer
from pma.train.state import TrainingState
from pma.train.world import World


def check(cfg: DictConfig) -> None:
    """Refuse a run that cannot start, before any work.

    Raises:
        ValueError: for impossible values, a part that the corpus lacks, or a parent run that is not trained yet.
    """
    validate(cfg)
    require_part(cfg)
    parent = parent_folder(cfg)
    if parent is not None and not (parent / MANIFEST).exists():
        raise ValueError(f"init.parent: {parent} is missing; train run={cfg.init.parent.run} first")


def resume(cfg: DictConfig, state: TrainingState, world: World) -> int:
    """Put the run's newest checkpoint into the state of training, or its start if it has none.

    Returns:
        The position in tokens.
    """
    saved = checkpoints(run_folder(cfg))
    if not saved:
        return initialise(cfg, state)
    tokens = load_checkpoint(saved[max(saved)], state)
    _require_metrics(cfg, tokens)
    world.print(f"{cfg.run_id}: resumed at {tokens:,} tokens")
    return tokens


def _require_metrics(cfg: DictConfig, tokens: int) -> None:
    """Refuse to go on with metrics that end before the checkpoint: the run's curve would have a hole for good."""
    path, interval = run_folder(cfg) / "metrics.jsonl", cfg.train.log_interval * cfg.scale.batch_tokens
    begin = cfg.init.parent.tokens if is_fork(cfg) else cfg.init.tokens or 0
    logged = [row["tokens"] for row in read_rows(path, tokens=int)]
    due, newest = tokens - tokens % interval, max(logged, default=begin)
    if newest < due and (logged or cfg.init.checkpoint is None):  # whose position is not known here
        raise ValueError(
            f"{path}: ends at {newest:,} tokens, but the checkpoint stands at {tokens:,}; put the whole file back, or "
            f"remove the folder {path.parent} and train the run again: it gives the same bits"
        )


def initialise(cfg: DictConfig, state: TrainingState) -> int:
    """Put what `cfg.init` names into model and optimizer; without it both stay as they are. Averages begin anew.

    Returns:
        The position in tokens: `init.tokens` if given, else that of the checkpoint or fork, else 0.

    Raises:
        ValueError: for weights or a checkpoint of another architecture, or a parent without the snapshots or the
            checkpoints to start from.
    """
    tokens = 0
    if cfg.init.checkpoint is not None:
        tokens = load_checkpoint(Path(cfg.init.checkpoint), state)
    if cfg.init.weights is not None:
        _load_given_weights(cfg, state.model)
    if cfg.init.parent.run is not None:
        tokens = _load_parent(cfg, state)
    state.averages.restart()
    state.overwriting.restart()
    return tokens if cfg.init.tokens is None else cfg.init.tokens


def _load_given_weights(cfg: DictConfig, model: PreTrainedModel) -> None:
    given = load_pretrained(Path(cfg.init.weights))
    shapes = {name: tuple(p.shape) for name, p in given.named_parameters()}
    if shapes != {name: tuple(p.shape) for name, p in model.named_parameters()}:
        raise ValueError(
            f"init.weights={cfg.init.weights}: another architecture than model={cfg.model.name}; give weights of this "
            f"model, or the model of these weights"
        )
    copy_parameters(model, given.state_dict())


def _load_parent(cfg: DictConfig, state: TrainingState) -> int:
    """Load the parent's snapshot, or the mean of several, and the optimizer state that the config names.

    A fork returns the position it goes on from, any other start 0.
    """
    parent, folder = cfg.init.parent, parent_folder(cfg)
    assert folder is not None
    newest_first = [parent.tokens - i * (parent.interval or 0) for i in range(parent.n)]
    with_optimizer = {None: [], "last": newest_first[:1], "mean": newest_first}[parent.optimizer]
    saved = checkpoints(folder)
    _require_positions(cfg, with_optimizer, saved, "checkpoint", "fork_points")
    if is_fork(cfg):
        return load_checkpoint(saved[parent.tokens], state)
    _require_positions(cfg, newest_first, trajectory(folder), "snapshot", "snapshots_at")
    window = run_window(folder, parent.n, parent.interval or 1, parent.tokens)
    load_weights(state.model, average(window, sma(parent.n)))
    if with_optimizer:
        load_optimizer([saved[tokens] for tokens in with_optimizer], state)
    return 0


def _require_positions(cfg: DictConfig, needed: list[int], saved: Container[int], what: str, key: str) -> None:
    """Refuse a parent that did not keep what the run starts from, naming the positions and the key that keeps them."""
    missing = ", ".join(f"{tokens:,}" for tokens in needed if tokens not in saved)
    if missing:
        raise ValueError(
            f"{parent_folder(cfg)}: no {what} at {missing} tokens to start from; name each position in train.{key} of "
            f"run={cfg.init.parent.run}, remove that run's folder and train it again"
        )
