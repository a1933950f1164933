"""A run by its config: its folder, its identity, and how far it has been trained. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from pma.config import hash_json, scientific
from pma.files import sha256_file
from pma.json_files import MANIFEST, read_manifest


def run_folder(cfg: DictConfig) -> Path:
    """Return the folder of a run, RUNS_DIR/SCALE/RUN_ID."""
    return Path(cfg.runs_dir) / cfg.scale.name / cfg.run_id


def parent_folder(cfg: DictConfig) -> Path | None:
    """Return the folder of the run named in init.parent, from which this one starts; None without a parent."""
    parent = cfg.init.parent
    return None if parent.run is None else Path(cfg.runs_dir) / cfg.scale.name / f"{parent.run}-seed{parent.seed}"


def is_fork(cfg: DictConfig) -> bool:
    """Return whether the run continues its parent: same weights, optimizer state and position in tokens."""
    return cfg.init.parent.run is not None and cfg.init.parent.optimizer == "last" and cfg.init.parent.n == 1


def identity(cfg: DictConfig) -> str:
    """Return the run's identity: the hash of what decides its weights.

    Weights, a checkpoint or a parent that the run starts from count by their content, not by their path.

    Raises:
        ValueError: when the folder of the parent run is missing.
    """
    part = scientific(cfg)
    for key in ("weights", "checkpoint"):
        if (folder := cfg.init[key]) is not None:
            part["init"][key] = [sha256_file(path) for path in sorted(Path(folder).glob("*.safetensors"))]
    if (folder := parent_folder(cfg)) is not None:
        part["init"]["parent"]["run"] = read_manifest(folder, "config_hash")["config_hash"]
    return hash_json(part)


def trained_tokens(cfg: DictConfig) -> int:
    """Return the tokens up to which the run has been trained; 0 before its start.

    Raises:
        ValueError: when its folder holds a run of another identity.
    """
    folder = run_folder(cfg)
    if not (folder / MANIFEST).exists():
        return 0
    manifest = read_manifest(folder, config_hash=str, tokens=int)
    if manifest["config_hash"] != identity(cfg):
        raise ValueError(
            f"{folder} holds another run (config hash {manifest['config_hash']}, yours is {identity(cfg)}; compare "
            f"its config.yaml): give yours another name with run_id=NAME, or remove the folder"
        )
    if manifest["tokens"] > cfg.train.total_tokens:
        raise ValueError(
            f"{folder / MANIFEST}: {manifest['tokens']:,} tokens, and the run has {cfg.train.total_tokens:,}; put back "
            f"the file that was written, or remove it: the run goes on from its newest checkpoint"
        )
    return manifest["tokens"]


def target_tokens(cfg: DictConfig) -> int:
    """Return the position, in tokens, at which training ends for now: `stop`, or the run's end."""
    return min(cfg.stop or cfg.train.total_tokens, cfg.train.total_tokens)
