"""A run on disk: its folder, its identity, whether it is complete. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from pma.config import hash_json, scientific
from pma.files import MANIFEST, read_manifest, sha256_file


def run_folder(cfg: DictConfig) -> Path:
    """Folder of a run."""
    return Path(cfg.runs_dir) / cfg.scale.name / cfg.run_id


def parent_folder(cfg: DictConfig) -> Path | None:
    """Folder of the run that this one starts from, if it names one in init.parent."""
    parent = cfg.init.parent
    return None if parent.run is None else Path(cfg.runs_dir) / cfg.scale.name / f"{parent.run}-seed{parent.seed}"


def is_fork(cfg: DictConfig) -> bool:
    """Whether the run goes on where another was left: with its weights, its optimizer state, at its position."""
    return cfg.init.parent.run is not None and cfg.init.parent.optimizer == "last" and cfg.init.parent.n == 1


def identity(cfg: DictConfig) -> str:
    """Hash of the scientific config, where a fork counts by what it starts from rather than by its path.

    Raises:
        ValueError: when the parent run is not there.
    """
    part = scientific(cfg)
    for key in ("weights", "checkpoint"):
        if (folder := cfg.init[key]) is not None:
            part["init"][key] = [sha256_file(path) for path in sorted(Path(folder).glob("*.safetensors"))]
    if (folder := parent_folder(cfg)) is not None:
        part["init"]["parent"]["run"] = read_manifest(folder)["config_hash"]
    return hash_json(part)


def trained_tokens(cfg: DictConfig) -> int:
    """Tokens up to which this very run, by identity, has been trained.

    Raises:
        ValueError: when its folder holds another run.
    """
    folder = run_folder(cfg)
    if not (folder / MANIFEST).exists():
        return 0
    manifest = read_manifest(folder)
    if manifest["config_hash"] != identity(cfg):
        raise ValueError(
            f"{folder} holds another run (config hash {manifest['config_hash']}, this one is {identity(cfg)}; compare "
            f"its config.yaml): give this one a name of its own with run_id=NAME, or remove the folder"
        )
    return manifest["tokens"]


def target_tokens(cfg: DictConfig) -> int:
    """Where training ends for now, tokens."""
    return min(cfg.stop or cfg.train.total_tokens, cfg.train.total_tokens)
