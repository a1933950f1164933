"""A search for the best merge killed at any moment: the same command gives the table of a search never killed."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import torch
from campaign import Ended, Outcome, Running, command
from kills import Killer, left_aside, shared, writing
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config

KILLS = 4  # of one trial
WORDS = "zero one two three four five six seven eight nine ten plus minus is the sum of and then".split()


def scored_run(folder: Path) -> Path:
    """run/ with four checkpoints of a tiny model, and held.jsonl to score them on; shared by all trials."""
    return shared(folder, "scored-run", _make_run)


def _make_run(aside: Path) -> None:
    random = Random(0)
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([" ".join(WORDS)] * 9, vocab_size=300, special_tokens=["<|end|>"], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<|end|>")
    sizes = dict(vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    sizes |= dict(num_key_value_heads=1, head_dim=8, max_position_embeddings=64, tie_word_embeddings=True)
    generator = torch.Generator().manual_seed(0)
    model = AutoModelForCausalLM.from_config(Qwen3Config(**sizes))
    middle = {name: 0.1 * torch.randn(t.shape, generator=generator) for name, t in model.state_dict().items()}
    for step in (10, 20, 30, 40):
        noise = {name: t + 0.03 * torch.randn(t.shape, generator=generator) for name, t in middle.items()}
        model.load_state_dict(noise)
        place = aside / "run" / f"checkpoint-{step}"
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
        (place / "trainer_state.json").write_text("{}")
    texts = [" ".join(random.choice(WORDS) for _ in range(random.randint(5, 30))) for _ in range(24)]
    (aside / "held.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def search(folder: Path) -> list[str]:
    """Arguments of the command."""
    place = scored_run(folder)
    return [f"run_dir={place / 'run'}", f"text={place / 'held.jsonl'}", "output=out", "threads=1", "device=cpu"]


def table(folder: Path, ended: Ended) -> tuple[list[str], str]:
    """What a search ends with: its lines but for the time, and its page."""
    lines = ended.stdout.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("scored in"))
    return lines[first + 1 :], (folder / "out/index.html").read_text()


def killed_search(random: Random, folder: Path) -> Outcome:
    """A search that is killed again and again, and then let finish."""
    given = search(folder)
    expected, output = whole_table(folder), folder / "out"
    killer = Killer(random, usual_seconds(folder), lambda: writing(output))
    while not killer.enough(KILLS):
        ended = killer.kill(Running("pma.choose", *given, folder=folder))
        if ended.code > 0:
            return Outcome("traceback", f"{ended.stderr[-600:]}; {killer.note}")
        if ended.code == 0 and list(table(folder, ended)) != expected:
            return Outcome("wrong", f"another table; {killer.note}")
    return searched(command("pma.choose", *given, folder=folder), folder, expected, killer.note)


def searched(ended: Ended, folder: Path, expected: list, note: str) -> Outcome:
    """What came of the same command in the end."""
    if ended.hung:
        return Outcome("hang", note)
    if ended.code != 0:
        return Outcome("traceback", f"after {note}: {ended.stderr[-600:]}")
    if list(table(folder, ended)) != expected:
        return Outcome("wrong", f"another table; {note}")
    if over := left_aside(folder):
        return Outcome("left over", f"{over[:5]}; {note}")
    return Outcome("right", note)


def whole_table(folder: Path) -> list:
    """What a search that nobody stops ends with."""
    given = search(folder)

    def make(aside: Path) -> None:
        ended = command("pma.choose", *given, folder=aside)
        assert ended.code == 0, ended.stderr[-1500:]
        (aside / "table.json").write_text(json.dumps(table(aside, ended)))
        (aside / "seconds").write_text(str(ended.seconds))

    return json.loads((shared(folder, "searched", make) / "table.json").read_text())


def usual_seconds(folder: Path) -> float:
    """What that search took."""
    return float((folder.parents[1] / "shared/searched/seconds").read_text())
