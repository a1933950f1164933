"""Turn checkpoints of torchtitan, or merges of several, into model folders that transformers loads.

The tensors get the names of Qwen3 or Qwen3-MoE in transformers, a few megabytes at a time, without torchtitan and
without a model in memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pma.config import ModelConfig
from pma.files import hash_files, publish_folder, write_json
from pma.json_files import MANIFEST
from pma.merge import Options
from pma.merge.formats import SIZES, Source, TensorInfo, iterate_spans, open_source
from pma.merge.write import WEIGHTS, SafetensorsWriter
from pma.snapshot import content_of
from pma.torchtitan import ENGINE
from pma.torchtitan.names import TensorNames, tensor_names


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
            manifest = {"source": source, "engine": ENGINE, "content": content_of(aside)}
            write_json(aside / MANIFEST, {**manifest, "files": hash_files(aside, but=WEIGHTS)})
    finally:
        opened.close()
    return output


def _require_same(source: Source, names: TensorNames, m: ModelConfig) -> None:
    """Refuse a source whose tensors are not those of the model."""
    stored = {name: info.shape for name, info in source.tensors.items()}
    if m.tie_embeddings:
        stored.pop("lm_head.weight", None)
    for bias in [name for name in stored if name.endswith(".moe.expert_bias_E")]:
        values = np.empty(source.tensors[bias].nbytes, np.uint8)
        source.read(bias, 0, values)
        if values.any():
            raise ValueError(
                f"{source.name}: {bias} is not zero: it was trained with torchtitan's own balancing of experts, for "
                f"which Qwen3-MoE has no tensor; train with the config that python -m pma.engine writes"
            )
        del stored[bias]
    expected = {name: shape for name, (shape, _) in names.items()}
    for name in sorted(expected.keys() ^ stored.keys()):
        wrong = "missing" if name in expected else f"no tensor of model={m.name}"
        raise ValueError(f"{source.name}: {name} is {wrong}; give the run and scale that it was trained with")
    for name, shape in expected.items():
        if stored[name] != shape:
            raise ValueError(
                f"{source.name}: {name} has shape {stored[name]}, in model={m.name} it has {shape}; give the run and "
                f"scale that it was trained with"
            )


def _write_tensors(source: Source, names: TensorNames, folder: Path) -> str:
    """Write the tensors; returns their storage type by torch's name, float32 where there are several."""
    infos: dict[str, TensorInfo] = {}
    for name, (shape, targets) in names.items():
        info = TensorInfo(source.tensors[name].dtype, shape[1:] if len(targets) > 1 else shape)
        infos |= {target: info for target in targets}
    writer = SafetensorsWriter(folder, infos, Options.shard_size)
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
