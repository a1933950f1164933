"""The largest sizes on torchtitan: its config from ours, and the way back from its checkpoints to Hugging Face folders.

python -m pma.engine run=moe_10b_100b scale=paper
python -m pma.engine run=moe_10b_100b scale=paper convert=CHECKPOINT/step-954

The first writes one Python file, which is what torchtitan 0.3.0 reads (torchtitan/config/manager.py), with the model's
shape and every number of the run. The second renames the tensors of a checkpoint, or of a merge of several, to those of
Qwen3 or Qwen3-MoE in transformers, as torchtitan/models/qwen3/state_dict_adapter.py does: a few megabytes at a time,
without torchtitan and without a model in memory. docs/scale.md says why torchtitan, and what differs from pma.train.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from pma.config import CONF_DIR, ModelConfig, register, validate
from pma.files import MANIFEST, hash_files, publish_folder, write_json, write_text
from pma.layout import snapshot_dir
from pma.merge.formats import SIZES, Source, TensorInfo, iterate_spans, open_source
from pma.merge.write import WEIGHTS, SafetensorsWriter
from pma.run import is_fork, parent_folder, run_folder, target_tokens
from pma.snapshot import content_of

ENGINE = "torchtitan 0.3.0"  # the release that every key and name below was checked against
_DECAY = {"none": "linear", "linear": "linear", "cosine": "cosine", "1-sqrt": "sqrt"}  # none: over zero steps
_SHARD_BYTES = 5_000_000_000
_STEP = re.compile(r"step-(\d+)")

# ---- there: the config -----------------------------------------------------------------------------------------------


def _refuse(cfg: DictConfig) -> None:
    """Raise ValueError for what torchtitan, or this file's use of it, cannot express."""
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
            raise ValueError(f"{key}={value}: cannot be said to {ENGINE}: {mend}")


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
    assert tokens % batch_tokens == 0  # validate has seen to it
    return tokens // batch_tokens


def write_config(cfg: DictConfig, folder: Path, tokenizer: str) -> Path:
    """Write the config of a training job into `folder`; returns the file.

    Raises:
        ValueError: as `tables` does.
    """
    module = f"pma_{cfg.run_name}"
    text = "\n".join(f"{name} = {_literal(table)}" for name, table in tables(cfg, tokenizer).items())
    about = {"run_id": cfg.run_id, "engine": ENGINE, "folder": folder, "module": module}
    template = Template(Path(__file__).with_name("template.py").read_text(encoding="utf-8"))
    path = folder / f"{module}.py"
    write_text(path, template.safe_substitute(about).replace("# The tables stand here.", text))
    return path


def _literal(table: dict[str, Any]) -> str:
    return "{\n" + "".join(f"    {key!r}: {value!r},\n" for key, value in table.items()) + "}"


# ---- back: the checkpoints -------------------------------------------------------------------------------------------


def tensor_names(m: ModelConfig) -> dict[str, tuple[tuple[int, ...], list[str]]]:
    """Shape of every tensor of torchtitan's Qwen3, and its name in transformers' saved models: one, or one an expert.

    Its grouped experts hold one matrix an expert, stacked along the first axis, each as transformers saves it. Tied
    models have their lm_head in the embeddings.
    """
    h, q, kv = m.hidden_size, m.heads * m.head_dim, m.kv_heads * m.head_dim
    of_layer = {
        "attention_norm.weight": ((h,), "input_layernorm.weight"),
        "attention.qkv_linear.wq.weight": ((q, h), "self_attn.q_proj.weight"),
        "attention.qkv_linear.wk.weight": ((kv, h), "self_attn.k_proj.weight"),
        "attention.qkv_linear.wv.weight": ((kv, h), "self_attn.v_proj.weight"),
        "attention.wo.weight": ((h, q), "self_attn.o_proj.weight"),
        "attention.q_norm.weight": ((m.head_dim,), "self_attn.q_norm.weight"),
        "attention.k_norm.weight": ((m.head_dim,), "self_attn.k_norm.weight"),
        "ffn_norm.weight": ((h,), "post_attention_layernorm.weight"),
    }
    if m.kind == "dense":
        f = m.intermediate_size
        for theirs, ours, shape in (("w1", "gate", (f, h)), ("w3", "up", (f, h)), ("w2", "down", (h, f))):
            of_layer[f"feed_forward.{theirs}.weight"] = shape, f"mlp.{ours}_proj.weight"
    else:
        e, f = m.experts, m.expert_intermediate_size
        of_layer["moe.router.gate.weight"] = (e, h), "mlp.gate.weight"
        for theirs, ours, shape in (("w1_EFD", "gate", (f, h)), ("w3_EFD", "up", (f, h)), ("w2_EDF", "down", (h, f))):
            name = f"moe.routed_experts.inner_experts.{theirs}"
            of_layer[name] = (e, *shape), f"mlp.experts.{{}}.{ours}_proj.weight"
    whole = {"tok_embeddings.weight": ((m.vocab_size, h), ["model.embed_tokens.weight"])}
    whole |= {"norm.weight": ((h,), ["model.norm.weight"])}
    if not m.tie_embeddings:
        whole["lm_head.weight"] = (m.vocab_size, h), ["lm_head.weight"]
    for i in range(m.layers):
        for name, (shape, ours) in of_layer.items():
            targets = [ours.format(e) for e in range(m.experts)] if "{}" in ours else [ours]
            whole[f"layers.{i}.{name}"] = shape, [f"model.layers.{i}.{target}" for target in targets]
    return whole


def convert(source: str, output: Path, m: ModelConfig, sequence_length: int, tokenizer: Path) -> Path:
    """Turn a checkpoint of torchtitan, or a merge of several, into a model folder in Hugging Face layout.

    Args:
        source: folder: a step-N of torchtitan, or what pma.merge or pma.watch made of some, in either of its formats.
        output: folder to make; it must not exist.
        m: the model that was trained.
        sequence_length: tokens it was trained on at a time, config.json's max_position_embeddings.
        tokenizer: folder that AutoTokenizer reads; its files go with the model.

    Raises:
        ValueError: when the tensors are not those of the model, or something is in the way; nothing is left behind.
    """
    from transformers import AutoTokenizer

    if output.exists():
        raise ValueError(f"output={output}: exists already; remove it or give another folder")
    if not tokenizer.is_dir():
        raise ValueError(f"tokenizer={tokenizer}: no such folder; give the one that the run was trained with")
    words = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
    opened = open_source(source)
    try:
        names = tensor_names(m)
        _require_same(opened, names, m)
        with publish_folder(output) as aside:
            dtype = _write_tensors(opened, names, aside)
            _write_model_config(aside, m, sequence_length, words.eos_token_id, dtype)
            words.save_pretrained(aside)
            told = {"source": source, "engine": ENGINE, "content": content_of(aside)}
            write_json(aside / MANIFEST, {**told, "files": hash_files(aside, but=WEIGHTS)})
    finally:
        opened.close()
    return output


def _require_same(source: Source, names: dict[str, tuple[tuple[int, ...], list[str]]], m: ModelConfig) -> None:
    found = {name: info.shape for name, info in source.tensors.items()}
    if m.tie_embeddings:
        found.pop("lm_head.weight", None)
    for bias in [name for name in found if name.endswith(".moe.expert_bias_E")]:
        values = np.empty(source.tensors[bias].nbytes, np.uint8)
        source.read(bias, 0, values)
        if values.any():
            raise ValueError(
                f"{source.name}: {bias} is not zero: it was trained with torchtitan's own balancing of experts, for "
                f"which Qwen3-MoE has no tensor; train with the config that python -m pma.engine writes"
            )
        del found[bias]
    wanted = {name: shape for name, (shape, _) in names.items()}
    for name in sorted(wanted.keys() ^ found.keys()):
        wrong = "missing" if name in wanted else f"no tensor of model={m.name}"
        raise ValueError(f"{source.name}: {name} is {wrong}; give the run and scale that it was trained with")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise ValueError(
                f"{source.name}: {name} has shape {found[name]}, in model={m.name} it has {shape}; give the run and "
                f"scale that it was trained with"
            )


def _write_tensors(source: Source, names: dict[str, tuple[tuple[int, ...], list[str]]], folder: Path) -> str:
    """Write them; returns the storage type, by torch's name, of all that are not fp32, or float32."""
    infos = {}
    for name, (shape, targets) in names.items():
        info = TensorInfo(source.tensors[name].dtype, shape[1:] if len(targets) > 1 else shape)
        infos |= {target: info for target in targets}
    writer = SafetensorsWriter(folder, infos, _SHARD_BYTES)
    try:
        for name, (_, targets) in names.items():
            for i, target in enumerate(targets):
                info = infos[target]
                for start, count in iterate_spans(info):
                    values = np.empty(count * SIZES[info.dtype], np.uint8)
                    source.read(name, i * info.count + start, values)
                    writer.write(target, start, values)
    finally:
        writer.close()
    stored = {info.dtype for info in infos.values()}
    return {"BF16": "bfloat16", "F16": "float16"}.get(stored.pop() if len(stored) == 1 else "", "float32")


def _write_model_config(folder: Path, m: ModelConfig, sequence_length: int, eos_token_id: int, dtype: str) -> None:
    from pma.model.build import build_meta, hf_config

    config = hf_config(m, sequence_length, eos_token_id)
    config.architectures, config.dtype = [type(build_meta(m)).__name__], dtype
    config.save_pretrained(folder)


# ---- the command -----------------------------------------------------------------------------------------------------


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
    """What `python -m pma.engine` does.

    Raises:
        ValueError: for an unknown engine, and what `write_config` or `convert` refuse.
    """
    if job.engine != "torchtitan":
        raise ValueError(f"engine={job.engine}: choose torchtitan; docs/scale.md says why it alone")
    GlobalHydra.instance().clear()  # it knows conf/command only, where `run` and `scale` are no groups
    register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("config", [f"scale={job.scale}", f"run={job.run}", f"seed={job.seed}", *job.overrides])
    validate(cfg)
    if job.convert is not None:
        made = convert(job.convert, _output(job, cfg), cfg.model, cfg.scale.sequence_length, Path(job.tokenizer))
        print(f"{made}\nnext: python -m pma.evaluate model={made}", flush=True)
        return
    path = write_config(cfg, Path(job.output or f"{run_folder(cfg)}/torchtitan"), job.tokenizer)
    print(f"{path}\nnext: its first lines say how to start it", flush=True)
