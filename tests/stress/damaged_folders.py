"""What lies beside the weights of a merge's sources, damaged: config, manifest, tokenizer, links out of the folder."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
from campaign import Outcome, names
from damage import BYTES, JSON, damaged
from merging import CONFIG, judge, mean, merge, models
from oracle import Tensors, read
from safetensors.numpy import load_file, save_file

_MANIFEST = {"content": None, "corpus": "data/corpora/none", "files": {}, "sources": [{"folder": "a", "weight": 1.0}]}
_CARD = "---\nlicense: mit\n---\nA model.\n"


def damaged_config(random: Random, folder: Path) -> Outcome:
    """config.json, manifest.json, a card or a tokenizer's file of one of three sources is damaged."""
    sources = models(random, folder)
    for source in sources:
        (source / "tokenizer_config.json").write_text('{"model_max_length": 64}')
        (source / "README.md").write_text(_CARD)
        (source / "manifest.json").write_text(json.dumps({k: v for k, v in _MANIFEST.items() if v is not None}))
    victim = random.choice([sources[-1], *sources])
    file = random.choice(["config.json", "config.json", "config.json", "manifest.json", "manifest.json", "README.md"])
    damage = damaged(victim / file, random, JSON if file.endswith("json") else BYTES)
    more = random.choice([[], ["dtype=bfloat16"], ["dtype=float32"], ["format=dcp"]])
    if random.random() < 0.3:  # a head that only some of them hold
        for source in sources[1:]:
            tensors = load_file(source / "model.safetensors")
            tensors["lm_head.weight"] = np.ones((4, 3), np.float32)
            save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
        return _tied(random, folder, sources, victim, damage)
    before = names(folder)
    ended = merge(folder, sources, *more)
    if ended.code == 0 and "format=dcp" in more:
        return Outcome("right")  # the campaign of torch distributed checkpoints reads them
    return judge(folder, ended, before, victim.name, damage, mean(sources), tolerance=1e-2 if more else 1e-5)


def _tied(random: Random, folder: Path, sources: list[Path], victim: Path, damage: str) -> Outcome:
    """A head that is tied to the embeddings is left out; where a config does not say so, the merge is refused."""
    for source in sources:
        if source != victim:
            (source / "config.json").write_text(json.dumps({**CONFIG, "tie_word_embeddings": True}))
    before = names(folder)
    kept = {name: values for name, values in (mean([sources[0]]) or {}).items()}
    rest = [{k: v for k, v in (read(source) or {}).items() if k in kept} for source in sources]
    expected: Tensors = {name: sum(own[name] for own in rest) / 3 for name in kept}
    return judge(folder, merge(folder, sources), before, "checkpoint-", damage or "no tied head", expected)


def linked_assets(random: Random, folder: Path) -> Outcome:
    """A file beside the newest weights is a link: to a file outside, it is refused; within its folder it is copied."""
    sources = models(random, folder)
    secret = folder / "secret"
    secret.write_text("SECRET")
    file = random.choice(["vocab.txt", "tokenizer.json", "LICENSE", "modeling.py", "spiece.model"])
    target = random.choice([secret, Path("../secret"), Path("/etc/hostname"), Path("own.dat"), Path("nowhere")])
    (sources[-1] / "own.dat").write_text("{}")
    (sources[-1] / file).symlink_to(target)
    inside = str(target) in ("own.dat", "nowhere")
    before = names(folder)
    outcome = judge(folder, merge(folder, sources), before, file, "" if inside else f"link to {target}", mean(sources))
    copied = folder / "merged" / file
    if outcome.verdict == "right" and (copied.is_symlink() or (copied.exists() and copied.read_text() != "{}")):
        return Outcome("wrong", f"{file}, a link to {target}, was published")
    return outcome if outcome.verdict != "right" or inside else Outcome("wrong", f"a link to {target} was accepted")


# ---- LoRA adapters

_ADAPTER = {
    "peft_type": "LORA",
    "base_model_name_or_path": "base",
    "r": 2,
    "lora_alpha": 4,
    "rank_pattern": {},
    "alpha_pattern": {},
    "use_rslora": False,
    "use_dora": False,
    "fan_in_fan_out": False,
    "target_modules": ["q_proj"],
}


def _adapter(random: Random, folder: Path) -> Path:
    folder.mkdir()
    numbers = np.random.default_rng(random.getrandbits(32))
    name = "base_model.model.layers.{}.q_proj.lora_{}.weight"
    tensors = {name.format(k, "A"): numbers.standard_normal((2, 5)).astype("float32") for k in range(2)}
    tensors |= {name.format(k, "B"): numbers.standard_normal((4, 2)).astype("float32") for k in range(2)}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(_ADAPTER))
    return folder


def _products(folder: Path) -> Tensors | None:
    """What an adapter adds to its base model: scale B A by layer."""
    tensors = read(folder)
    try:
        config = json.loads((folder / "adapter_config.json").read_bytes())
        scale = config["lora_alpha"] / config["r"]
        names_of_a = [name for name in tensors if ".lora_A." in name]
        return {name: scale * tensors[name.replace(".lora_A.", ".lora_B.")] @ tensors[name] for name in names_of_a}
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError):
        return None


def damaged_adapters(random: Random, folder: Path) -> Outcome:
    """One of three LoRA adapters has a damaged config or damaged weights; the exact merge adds up their products."""
    sources = [_adapter(random, folder / f"checkpoint-{step}") for step in (10, 20, 30)]
    victim = random.choice([sources[-1], *sources])
    if random.random() < 0.75:
        damage = damaged(victim / "adapter_config.json", random, JSON)
        if damage and random.random() < 0.3:  # the same damage everywhere, so that they agree
            for source in sources:
                (source / "adapter_config.json").write_bytes((victim / "adapter_config.json").read_bytes())
    else:
        damage = damaged(victim / "adapter_model.safetensors", random, BYTES)
    products = [_products(source) for source in sources]
    before = names(folder)
    ended = merge(folder, sources)
    if ended.code or ended.traceback or ended.hung:
        return judge(folder, ended, before, "checkpoint-", damage, None)
    if any(each is None for each in products):
        return Outcome("wrong", f"{damage}: merged adapters whose config says nothing")
    made = _products(folder / "merged")
    for name, product in (made or {}).items():
        if not np.allclose(product, sum(each[name] for each in products) / 3, rtol=1e-4, atol=1e-5):
            return Outcome("wrong", f"{damage}: {name}: another product")
    return Outcome("right", damage) if made else Outcome("wrong", f"{damage}: the merged adapter cannot be read")
