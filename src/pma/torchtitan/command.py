"""The work of `python -m pma.engine`: compose the run's config, then write torchtitan's or convert a checkpoint."""

from __future__ import annotations

import re
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from pma.config import CONF_DIR, register, validate
from pma.layout import snapshot_dir
from pma.run import run_folder
from pma.torchtitan.config import write_config
from pma.torchtitan.convert import convert
from pma.words import print_next

_STEP = re.compile(r"step-(\d+)")


def _output(job: DictConfig, cfg: DictConfig) -> Path:
    """Folder of a converted checkpoint: as asked for, or the run's snapshot at that step, where merging finds it."""
    if job.output is not None:
        return Path(job.output)
    if (step := _STEP.fullmatch(Path(job.convert).name)) is None:
        raise ValueError(
            f"convert={job.convert}: its name is no step-N that would say where it belongs; give output=DIR"
        )
    return snapshot_dir(run_folder(cfg), int(step[1]) * cfg.scale.batch_tokens)


def run(job: DictConfig) -> None:
    """Write the config of a run, or convert a checkpoint of it: `python -m pma.engine`.

    Args:
        job: an EngineJob.

    Raises:
        ValueError: for an unknown engine, and what `write_config` or `convert` refuse.
    """
    if job.engine != "torchtitan":
        raise ValueError(f"engine={job.engine}: choose torchtitan; docs/torchtitan.md says why it alone")
    GlobalHydra.instance().clear()  # it knows conf/command only, where `run` and `scale` are no groups
    register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("config", [f"scale={job.scale}", f"run={job.run}", f"seed={job.seed}", *job.overrides])
    validate(cfg)
    if job.convert is not None:
        length, tokenizer = cfg.scale.sequence_length, Path(job.tokenizer)
        model = convert(job.convert, _output(job, cfg), cfg.model, length, tokenizer)
        print(f"the checkpoint as a Hugging Face folder: {model}")
        print_next(f"python -m pma.evaluate model={model}")
        return
    path = write_config(cfg, Path(job.output or f"{run_folder(cfg)}/torchtitan"), job.tokenizer)
    print(f"the config for torchtitan: {path}; its first lines say how to start it")
    print_next(f"head {path}")
