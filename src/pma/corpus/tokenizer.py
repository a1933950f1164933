"""Train the tokenizer of a corpus, and write documents and instruction pairs as files of tokens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from pma.corpus.clean import END_OF_TEXT, Document
from pma.corpus.instruct import Pair

MAX_LENGTH = 4096  # tokens; the longest sequence any scale trains on
_BATCH = 1024  # documents encoded at once


def train_tokenizer(documents: list[Document], vocab_size: int) -> Tokenizer:
    """Byte-level BPE of `documents`; digits stay single, so that sums can be learnt."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((document.text for document in documents), trainer)
    return tokenizer


def as_transformers(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer as AutoTokenizer loads it; `<|endoftext|>` begins, ends and pads."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def _encode(tokenizer: Tokenizer, documents: list[Document]) -> Iterator[tuple[Document, list[int]]]:
    for start in range(0, len(documents), _BATCH):
        batch = documents[start : start + _BATCH]
        encodings = tokenizer.encode_batch_fast([document.text for document in batch], add_special_tokens=False)
        yield from ((document, encoding.ids) for document, encoding in zip(batch, encodings, strict=True))


def write_documents(tokenizer: Tokenizer, documents: list[Document], path: Path, dtype: np.dtype) -> dict[str, int]:
    """Write the documents in their order, `<|endoftext|>` after each; returns tokens by domain, ends included."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    counts: dict[str, int] = defaultdict(int)
    with path.open("wb") as file:
        progress = tqdm(_encode(tokenizer, documents), "documents", len(documents), disable=None, leave=False)
        for document, ids in progress:
            np.array([*ids, end], dtype=dtype).tofile(file)
            counts[document.domain] += len(ids) + 1
    return dict(counts)


def write_pairs(tokenizer: Tokenizer, pairs: list[Pair], path: Path, dtype: np.dtype) -> dict[str, int]:
    """Write prompt, completion and `<|endoftext|>` of each pair to PATH.bin, and what is learnt to PATH.mask.bin.

    The mask is a uint8 for each token: 1 for completions and ends, 0 for prompts.

    Returns:
        Tokens by "learnt" and "not_learnt".
    """
    end = tokenizer.token_to_id(END_OF_TEXT)
    prompts = tokenizer.encode_batch_fast([pair.prompt for pair in pairs], add_special_tokens=False)
    completions = tokenizer.encode_batch_fast([pair.completion for pair in pairs], add_special_tokens=False)
    learnt = given = 0
    with path.with_suffix(".bin").open("wb") as tokens, path.with_suffix(".mask.bin").open("wb") as mask:
        for prompt, completion in zip(prompts, completions, strict=True):
            np.array([*prompt.ids, *completion.ids, end], dtype=dtype).tofile(tokens)
            np.repeat(np.array([0, 1], np.uint8), [len(prompt.ids), len(completion.ids) + 1]).tofile(mask)
            given += len(prompt.ids)
            learnt += len(completion.ids) + 1
    return {"learnt": learnt, "not_learnt": given}


def count_tokens(tokenizer: Tokenizer, documents: list[Document]) -> int:
    """Tokens of the documents, without ends."""
    return sum(len(ids) for _, ids in _encode(tokenizer, documents))
