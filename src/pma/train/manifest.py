"""What a run writes about itself: its config and manifest, in its folder and in each snapshot, and the same for W&B."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch
import transformers
from omegaconf import DictConfig, OmegaConf

from pma import __version__
from pma.device import cpu_threads
from pma.files import revision, write_json, write_text
from pma.json_files import MANIFEST, read_manifest
from pma.model.build import load_tokenizer, parameter_counts
from pma.run import identity, is_fork, parent_folder, run_folder
from pma.snapshot import complete_snapshot
from pma.train.world import World


class RunManifest:
    """The manifest of a run.

    Args:
        cfg: of the run.
        corpus: folder of the corpus that it trains on.
        world: only its first process writes.

    Attributes:
        fields: all but the position and the seconds, which change while the run trains.
    """

    def __init__(self, cfg: DictConfig, corpus: Path, world: World) -> None:
        self.fields = _fields(cfg, corpus, world)
        self._cfg, self._folder, self._writes = cfg, run_folder(cfg), world.first
        self._tokenizer = load_tokenizer(corpus / "tokenizer")
        seconds = read_manifest(self._folder).get("seconds") if (self._folder / MANIFEST).exists() else None
        self._seconds_before = seconds if isinstance(seconds, (int, float)) else 0.0

    def begin(self, tokens: int) -> None:
        """Write the resolved config, and the manifest at the position in tokens that this call starts from."""
        if self._writes:
            write_text(self._folder / "config.yaml", OmegaConf.to_yaml(self._cfg, resolve=True))
        self.write(tokens, 0.0)

    def write(self, tokens: int, seconds: float) -> None:
        """Write the manifest at a position in tokens, after `seconds` of training in this call."""
        if self._writes:
            spent = round(self._seconds_before + seconds, 1)
            write_json(self._folder / MANIFEST, {**self.fields, "tokens": tokens, "seconds": spent})

    def complete_snapshot(self, tokens: int, aside: Path) -> None:
        """Put tokenizer and manifest into the folder of a snapshot, beside its weights."""
        fields = {**self.fields, "tokens": tokens, "dtype": self._cfg.train.snapshot_dtype}
        complete_snapshot(aside, self._tokenizer, fields)

    def wandb(self) -> dict[str, Any]:
        """Return what W&B is given about the run; see `pma.tracking.Run`."""
        cfg = self._cfg
        config: Any = OmegaConf.to_container(cfg, resolve=True)
        return {
            "id": f"{cfg.run_id}-{self.fields['config_hash']}",
            "name": cfg.run_id,
            "group": cfg.group or os.environ.get("WANDB_RUN_GROUP") or cfg.run_name,
            "job_type": "train",
            "config": {**config, **self.fields},
        }


def versions() -> dict[str, str]:
    """Return what a record needs to be traced: versions, platform and code revision."""
    return {
        "pma": __version__,
        "revision": revision() or "unknown",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
    }


def _fields(cfg: DictConfig, corpus: Path, world: World) -> dict[str, Any]:
    counts = parameter_counts(cfg.model)
    on_gpu = world.device.type == "cuda"
    return {
        "run_id": cfg.run_id,
        "config_hash": identity(cfg),
        "seed": cfg.seed,
        "scale": cfg.scale.name,
        "corpus": corpus.as_posix(),
        "parameters": {"total": counts.total, "active": counts.active},
        **_continues(cfg),
        "optimizer_state": cfg.init.parent.optimizer or ("new" if cfg.init.checkpoint is None else "last"),
        "device": torch.cuda.get_device_name() if on_gpu else f"cpu, {cpu_threads(cfg.threads)} threads",
        **({"processes": world.size} if world.size > 1 else {}),
        "versions": versions(),
    }


def _continues(cfg: DictConfig) -> dict[str, Any]:
    # For pma.layout.trajectory: the snapshots of a fork follow those of its parent.
    parent = parent_folder(cfg)
    if parent is None or not is_fork(cfg):
        return {}
    return {"continues": {"run": parent.name, "tokens": cfg.init.parent.tokens}}
