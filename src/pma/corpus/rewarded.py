"""Questions with verifiable answers for reinforcement learning."""

from __future__ import annotations

import json
from pathlib import Path

from pma.config import DataConfig
from pma.corpus.generated import fresh
from pma.corpus.instruct import question_pair

_COUNT = 4000  # questions; some thousand are more than a short run asks


def reward_questions(config: DataConfig, corpus: Path, domain: str) -> list[tuple[str, str]]:
    """Prompts in the chat template, and their answers, of a generated domain; none is an item of the corpus."""
    generated = next(each for each in config.generated if each.domain == domain)
    asked = set()
    for path in sorted((corpus / "items").glob("*/*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            asked.add(json.loads(line)["context"].partition(": ")[2].rpartition("\n")[0])
    pairs = map(question_pair, fresh(generated, config.seed, _COUNT, asked))
    return [(pair.prompt, pair.completion) for pair in pairs]
