"""Scoring and choosing from damaged folders: the same scores, or one line."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from random import Random

from campaign import Ended, Outcome, command, names, refusal
from damage import BYTES, JSON, cut, damaged, garbage, line, root
from prepared import linked, own, prepared

_WORDS = "zero one two three four five six seven eight nine ten plus minus is the sum of and then".split()


def _world(folder: Path) -> None:
    """A run of three checkpoints of one small model, and text to score it on."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config

    random = Random(0)
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([" ".join(_WORDS)] * 9, vocab_size=300, special_tokens=["<|end|>"], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<|end|>")
    sizes = dict(vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    sizes |= dict(num_key_value_heads=1, head_dim=8, max_position_embeddings=64, tie_word_embeddings=True)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(Qwen3Config(**sizes))
    middle = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for step in (10, 20, 30):
        model.load_state_dict({name: t + 0.3 * torch.randn_like(t) for name, t in middle.items()})
        checkpoint = folder / "run" / f"checkpoint-{step}"
        model.save_pretrained(checkpoint)
        tokenizer.save_pretrained(checkpoint)
        (checkpoint / "trainer_state.json").write_text("{}")
    texts = [" ".join(random.choice(_WORDS) for _ in range(20)) for _ in range(16)]
    (folder / "held.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    for ended in (evaluate(folder), choose(folder)):
        if ended.code:
            raise RuntimeError(f"nothing to damage: {ended.stderr[-800:]}")
    (folder / "chosen.txt").write_text(_told(choose(folder)))


def evaluate(folder: Path) -> Ended:
    """Score the newest checkpoint."""
    arguments = ["model=run/checkpoint-30", "text=held.jsonl", "cache_dir=scores", "output=scores.json", "threads=1"]
    return command("pma.evaluate", *arguments, "device=cpu", folder=folder, seconds=120)


def choose(folder: Path) -> Ended:
    """Find the best merge of the run."""
    arguments = ["run_dir=run", "text=held.jsonl", "output=chosen", "methods=[sma]", "threads=1", "device=cpu"]
    return command("pma.choose", *arguments, folder=folder, seconds=120)


def _told(ended: Ended) -> str:
    """What choose says, but for the time and for how many were scored before."""
    return "\n".join(re.findall(r"^ *(?:\d|sma|single|last|best|the ).*", ended.stdout, re.MULTILINE))


def _scores(folder: Path) -> list[float]:
    return [score["value"] for score in json.loads((folder / "scores.json").read_bytes())["scores"]]


def _outcome(outcome: Outcome | None, wrong: str, where: str, damage: str) -> Outcome:
    if outcome is not None:
        return Outcome(outcome.verdict if damage else "wrong", f"{where} {damage}: {outcome.note}")
    return Outcome("wrong" if wrong else "right", f"{where} {damage}: {wrong}")


def damaged_evaluation(random: Random, folder: Path) -> Outcome:
    """A model folder, the text or a file of the cache of scores is damaged."""
    made = prepared(folder, "scored-run", _world)
    for name in ("run", "scores"):
        linked(made / name, folder / name)
    (folder / "held.jsonl").write_bytes((made / "held.jsonl").read_bytes())
    model = folder / "run/checkpoint-30"
    (cached,) = (path for path in (folder / "scores").rglob("*.json"))
    files = {
        model / "config.json": JSON,
        model / "model.safetensors": BYTES,
        model / "tokenizer.json": (root, cut, garbage),
        model / "tokenizer_config.json": JSON,
        folder / "held.jsonl": (line, cut, garbage),
        cached: JSON,
    }
    path = random.choice([cached, *files])
    damage = damaged(own(path), random, files[path])
    if path != cached:
        cached.unlink()
    before = names(folder)
    ended = evaluate(folder)
    outcome = refusal(ended, folder, before, path.parent.name if path.parent == model else path.name)
    wrong = ""
    if outcome is None:
        scores, expected = _scores(folder), _scores(made)
        decides = path.name in ("config.json", "model.safetensors", "held.jsonl") or "tokenizer" in path.name
        if not all(map(math.isfinite, scores)) or (scores != expected and not (damage and decides)):
            wrong = f"{scores} instead of {expected}"
    return _outcome(outcome, wrong, path.name, damage)


def damaged_choice(random: Random, folder: Path) -> Outcome:
    """The scores that a search goes on from are damaged."""
    made = prepared(folder, "scored-run", _world)
    for name in ("run", "chosen"):
        linked(made / name, folder / name)
    (folder / "held.jsonl").write_bytes((made / "held.jsonl").read_bytes())
    path = own(folder / "chosen/candidates.jsonl")
    damage = damaged(path, random, (line, line, line, cut, garbage))
    before = names(folder)
    ended = choose(folder)
    outcome, expected = refusal(ended, folder, before, path.name), (made / "chosen.txt").read_text()
    wrong = "" if outcome is not None or _told(ended) == expected else f"{_told(ended)} instead of {expected}"
    return _outcome(outcome, wrong, path.name, damage)
