"""A run on disk: its folder, its identity, whether it is complete. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from pma.config import hash_json, scientific
from pma.files import MANIFEST, read_manifest, sha256_file


def run_folder(cfg: DictConfig) -> Path:
    """Folder of a run."""
    return Path(cfg.runs_dir) / cfg.scale.name / cfg.run_id


def identity(cfg: DictConfig) -> str:
    """Hash of the scientific config, where a fork counts by what it starts from rather than by its path."""
    part = scientific(cfg)
    for key in ("weights", "checkpoint"):
        if (folder := cfg.init[key]) is not None:
            part["init"][key] = [sha256_file(path) for path in sorted(Path(folder).glob("*.safetensors"))]
    return hash_json(part)


def finished(cfg: DictConfig) -> bool:
    """Whether this very run, by identity, has been trained to its end.

    Raises:
        ValueError: when its folder holds another run.
    """
    folder = run_folder(cfg)
    if not (folder / MANIFEST).exists():
        return False
    manifest = read_manifest(folder)
    if manifest["config_hash"] != identity(cfg):
        raise ValueError(
            f"{folder} holds another run (config hash {manifest['config_hash']}, this one is {identity(cfg)}; compare "
            f"its config.yaml): give this one a name of its own with run_id=NAME, or remove the folder"
        )
    return manifest["finished"]
