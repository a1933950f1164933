"""Write the config of a run as torchtitan 0.3.0 reads it: one Python file (torchtitan/config/manager.py).

It holds the model's shape and every number of the run, in the code of template.py. docs/torchtitan.md says why
torchtitan, and what differs from pma.train.
"""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from omegaconf import DictConfig

from pma.files import write_text
from pma.run import is_fork, parent_folder, run_folder, target_tokens
from pma.torchtitan import ENGINE

_DECAY = {"none": "linear", "linear": "linear", "cosine": "cosine", "1-sqrt": "sqrt"}  # none: over zero steps


def _refuse(cfg: DictConfig) -> None:
    """Refuse what torchtitan, or this file's use of it, cannot express.

    Raises:
        ValueError: naming the key, its value and the mend.
    """
    t, parent = cfg.train, cfg.init.parent
    own = "train it with python -m pma.train"
    starts = {"init.weights": cfg.init.weights, "init.checkpoint": cfg.init.checkpoint, "init.tokens": cfg.init.tokens}
    starts |= {"init.rewarm_tokens": cfg.init.rewarm_tokens}
    if not is_fork(cfg):
        starts |= {"init.parent.run": parent.run}
    unknown = {key: (value, f"only fresh runs and forks of them go there; {own}") for key, value in starts.items()}
    unknown |= {
        "model.qk_norm": (None if cfg.model.qk_norm else False, "its Qwen3 has it; give true"),
        "train.clip_norm": ("null" if t.clip_norm is None else None, "it always clips; give a number"),
        "train.part": (None if t.part == "train" else t.part, f"it streams one corpus; {own}"),
        "train.snapshots_at": (t.snapshots_at, "it saves at an interval; give null"),
        "train.snapshot_dtype": (
            None if t.snapshot_dtype == "float32" else t.snapshot_dtype,
            "it saves fp32; give float32, and dtype=bfloat16 to pma.merge",
        ),
        "data": (None if cfg.data.hub else cfg.data.name, "it streams text of the hub; give data=paper"),
        "data.hub": (
            None if len(cfg.data.hub or ()) < 2 else [hub.path for hub in cfg.data.hub],
            f"it streams one data set; {own}",
        ),
    }
    for key, (value, mend) in unknown.items():
        if value is not None:
            raise ValueError(f"{key}={value}: cannot be expressed for {ENGINE}: {mend}")


def tables(cfg: DictConfig, tokenizer: str) -> dict[str, dict[str, Any]]:
    """Keyword arguments of torchtitan's configs for a training job: a table for each, by its name in the file.

    Tokens become steps: steps, warmup_steps, total_steps and interval count optimizer steps; global_batch_size counts
    sequences; decay_ratio is a share of total_steps (0: constant rate), min_lr_factor one of the peak rate.

    Raises:
        ValueError: naming the key that cannot be expressed, and the mend.
    """
    _refuse(cfg)
    s, m, t, schedule = cfg.scale, cfg.model, cfg.train, cfg.schedule
    steps = partial(_steps, batch_tokens=s.batch_tokens)
    checkpoint: dict[str, Any] = {"enable": True, "folder": "checkpoint", "interval": steps(t.snapshot_interval)}
    checkpoint |= {"keep_latest_k": 0, "last_save_model_only": False, "async_mode": "async"}
    if (parent := parent_folder(cfg)) is not None:  # with optimizer, position and data order: a fork
        at = f"checkpoint/step-{steps(cfg.init.parent.tokens)}"
        checkpoint |= {"initial_load_path": str((parent / "torchtitan" / at).resolve())}
        checkpoint |= {"initial_load_model_only": False}
    return {
        "MODEL": {key: value for key, value in m.items() if value is not None},
        "TRAINING": {
            "local_batch_size": 1,  # sequences a process at a time; the rest of the batch accumulates
            "global_batch_size": s.batch_tokens // s.sequence_length,
            "seq_len": s.sequence_length,
            "steps": steps(target_tokens(cfg)),
            "max_norm": t.clip_norm,
            "dtype": "float32",
            "mixed_precision_param": "bfloat16",
            "disable_cuda_graphs": m.kind == "moe",  # its standard dispatch of tokens waits for their number
        },
        "SCHEDULE": {
            "warmup_steps": steps(schedule.warmup_tokens),
            "total_steps": steps(t.total_tokens),
            "decay_ratio": schedule.decay_tokens / t.total_tokens,
            "decay_type": _DECAY[schedule.decay_shape],
            "min_lr_factor": schedule.end_lr / schedule.peak_lr,
        },
        "OPTIMIZER": {
            "lr": schedule.peak_lr,
            "betas": (t.beta1, t.beta2),
            "eps": t.eps,
            "weight_decay": t.weight_decay,
        },
        "CHECKPOINT": checkpoint,
        "METRICS": {"log_freq": t.log_interval},
        "DEBUG": {"seed": cfg.seed},
        "DATA": {key: cfg.data.hub[0][key] for key in ("path", "name", "revision", "split", "text_field")},
        "FOLDERS": {"hf_assets_path": tokenizer, "dump_folder": str(run_folder(cfg) / "torchtitan")},
    }


def _steps(tokens: int, batch_tokens: int) -> int:
    assert tokens % batch_tokens == 0  # pma.config.validate refuses anything else
    return tokens // batch_tokens


def write_config(cfg: DictConfig, folder: Path, tokenizer: str) -> Path:
    """Write the config of a training job into `folder`; returns the file, FOLDER/pma_RUN.py.

    Args:
        tokenizer: folder that torchtitan reads the tokenizer from.

    Raises:
        ValueError: as `tables` does.
    """
    module = f"pma_{cfg.run_name}"
    text = "\n".join(f"{name} = {_literal(table)}" for name, table in tables(cfg, tokenizer).items())
    values = {"run_id": cfg.run_id, "engine": ENGINE, "folder": folder, "module": module}
    template = Template(files("pma.torchtitan").joinpath("template.py").read_text(encoding="utf-8"))
    path = folder / f"{module}.py"
    write_text(path, template.safe_substitute(values).replace("# The tables stand here.", text))
    return path


def _literal(table: dict[str, Any]) -> str:
    return "{\n" + "".join(f"    {key!r}: {value!r},\n" for key, value in table.items()) + "}"
