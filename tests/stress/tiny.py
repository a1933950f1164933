"""What campaigns work on: a run of a few seconds, and checkpoints that can be scored."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

# A run on text that needs no download; a campaign adds its length and intervals.
RUN = [
    "scale=smoke",
    "run_id=run",
    "data=generated",
    "tracking=off",
    "threads=1",
    "train.fork_points=[]",
    "runs_dir=runs",
]
_WORDS = "zero one two three four five six seven eight nine ten plus minus is the sum of and then".split()


def scored_run(folder: Path) -> None:
    """Write run/ with four checkpoints of a tiny model and its tokenizer, and held.jsonl to score them on."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config

    random = Random(0)
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([" ".join(_WORDS)] * 9, vocab_size=300, special_tokens=["<|end|>"], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<|end|>")
    sizes = dict(vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    sizes |= dict(num_key_value_heads=1, head_dim=8, max_position_embeddings=64, tie_word_embeddings=True)
    generator = torch.Generator().manual_seed(0)
    model = AutoModelForCausalLM.from_config(Qwen3Config(**sizes))
    middle = {name: 0.1 * torch.randn(t.shape, generator=generator) for name, t in model.state_dict().items()}
    for step in (10, 20, 30, 40):
        noise = {name: t + 0.03 * torch.randn(t.shape, generator=generator) for name, t in middle.items()}
        model.load_state_dict(noise)
        checkpoint = folder / "run" / f"checkpoint-{step}"
        model.save_pretrained(checkpoint)
        tokenizer.save_pretrained(checkpoint)
        (checkpoint / "trainer_state.json").write_text("{}")
    texts = [" ".join(random.choice(_WORDS) for _ in range(random.randint(5, 30))) for _ in range(24)]
    (folder / "held.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
