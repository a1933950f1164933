"""Where lm-eval looks for vLLM's tokenizers."""

from __future__ import annotations

from transformers import AutoTokenizer, PreTrainedTokenizerBase


def get_tokenizer(name: str, tokenizer_mode: str, **options: object) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder."""
    return AutoTokenizer.from_pretrained(name, **options)
