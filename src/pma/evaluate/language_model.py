"""lm-eval's Hugging Face model, made fast for scoring many weights of one small model.

Same results as lm-eval's HFLM to float tolerance, from less work:
- each text is encoded once a process, whichever model it is for;
- the choices of an item share one pass over their context: they stand one after the other in one row, and a mask
  hides each from the others (tree attention, as in SpecInfer, arXiv 2305.09781);
- the output head runs only where a token is scored;
- rows are padded on the right to batches of like length, which is exact for a causal model;
- on a CPU batches run side by side, one thread each, which is faster than intra-op threads for small models. Batches
  do not depend on the number of threads, so neither do the bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Architectures whose logits are lm_head(hidden states), nothing else; any other goes through HFLM's own path.
_PLAIN_HEAD = ("qwen3", "qwen3_moe", "llama", "mixtral")
_BATCH_TOKENS = {"cpu": 2048, "cuda": 32768}
_HEAD_LOGITS = {"cpu": 2**19, "cuda": 2**28}  # logits at once: what stays in a CPU's cache, or fits a GPU

# By tokenizer: a process scores models of many runs with one tokenizer, and encoding a suite takes seconds.
_encodings: dict[str, dict[tuple, list[int]]] = {}

Encoded = tuple[object, list[int], list[int]]  # (anything, context, continuation), lm-eval's order
Answer = tuple[float, bool]  # (log-likelihood in nats, is the continuation the greedy one)


@dataclass
class _Row:
    """One context and the continuations scored after it, as one sequence."""

    context: list[int]
    members: list[tuple[int, list[int]]] = field(default_factory=list)  # (index of the request, continuation)
    length: int = 0  # tokens fed to the model: the last one of a continuation is only predicted

    def add(self, index: int, continuation: list[int]) -> None:
        self.length = (self.length or len(self.context)) + len(continuation) - 1
        self.members.append((index, continuation))


class FastLM(HFLM):
    """An lm-eval LM around a loaded model; weights may be swapped in place between calls.

    Args:
        model: in eval mode, on its device.
        threads: CPU threads; ignored on a GPU.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, threads: int = 1) -> None:
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=16)
        # Long texts are cut into windows; the tokenizer would warn of them.
        tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
        if model.device.type == "cuda":
            # Products on tensor cores (TF32), sums in fp32: fast enough, and no merge is rounded to bf16.
            torch.set_float32_matmul_precision("high")
        self._threads = threads
        self._encodings = _encodings.setdefault(tokenizer.backend_tokenizer.to_str(), {})
        self._fast = model.config.model_type in _PLAIN_HEAD and model.config._attn_implementation == "sdpa"

    def tok_encode(self, string: str, *args: Any, **kwargs: Any) -> list[int]:
        """HFLM's encoding, kept for the next weights."""
        key = (string, args, tuple(kwargs.items()))
        if key not in self._encodings:
            self._encodings[key] = super().tok_encode(string, *args, **kwargs)
        return self._encodings[key]

    def loglikelihood_rolling(self, requests: list, disable_tqdm: bool = False) -> list[float]:
        """HFLM's windows (context 1, the model's length), those of all documents at once instead of batch by batch."""
        windows = []
        for request in requests:
            tokens = self.tok_encode(request.args[0])
            rolling = get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, context_len=1)
            windows.append([make_disjoint_window(window) for window in rolling])
        flat = [(None, *window) for document in windows for window in document]
        answers = iter(self._loglikelihood_tokens(flat, disable_tqdm))
        return [sum(next(answers)[0] for _ in document) for document in windows]

    def _loglikelihood_tokens(
        self, requests: Sequence[Encoded], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Answer]:
        if not self._fast:
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        device = self.model.device.type
        batches = list(_batches(_rows(requests, self.max_length), _BATCH_TOKENS[device]))
        answers: list[Answer] = [(0.0, False)] * len(requests)
        for part in tqdm(self._map(batches), total=len(batches), unit="batch", disable=disable_tqdm):
            for index, answer in part:
                answers[index] = answer
        return answers

    def _map(self, batches: list[list[_Row]]) -> Iterator[list[tuple[int, Answer]]]:
        if self.model.device.type != "cpu":
            yield from map(self._score, batches)
            return
        before = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(self._threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                yield from pool.map(self._score, batches)
        finally:
            torch.set_num_threads(before)

    @torch.inference_mode()
    def _score(self, rows: list[_Row]) -> list[tuple[int, Answer]]:
        device = self.model.device
        inputs, scored, targets, members = _tensors(rows)
        hidden = self.model.base_model(**{k: v.to(device) for k, v in inputs.items()}, use_cache=False)[0]
        hidden, targets = hidden.flatten(0, 1)[scored.to(device)], targets.to(device)
        head = self.model.get_output_embeddings()
        chunk = max(1, _HEAD_LOGITS[device.type] // head.weight.shape[0])
        parts = [_head(head, h, t) for h, t in zip(hidden.split(chunk), targets.split(chunk), strict=True)]
        logprobs = torch.cat([logprob for logprob, _ in parts]).double().cpu().numpy()
        greedy = torch.cat([best for _, best in parts]).cpu().numpy()
        starts = np.cumsum([0] + [length for _, length in members[:-1]])
        sums, all_greedy = np.add.reduceat(logprobs, starts), np.logical_and.reduceat(greedy, starts)
        return [(i, (float(s), bool(g))) for (i, _), s, g in zip(members, sums, all_greedy, strict=True)]


def _head(head: torch.nn.Module, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability (nats) of each target and whether it is the most likely token; hidden is (positions, width)."""
    logits = head(hidden).float()
    chosen = logits.gather(1, targets[:, None])[:, 0]
    return chosen - logits.logsumexp(1), chosen >= logits.amax(1)


def _rows(requests: Sequence[Encoded], max_length: int) -> list[_Row]:
    """Requests grouped by context, each cut from the left to the model's length as HFLM does."""
    rows: list[_Row] = []
    open_rows: dict[tuple[int, ...], _Row] = {}
    for index, (_, context, continuation) in enumerate(requests):
        assert context and 0 < len(continuation) <= max_length
        context = context[-(max_length + 1 - len(continuation)) :]
        row = open_rows.get(tuple(context))
        if row is None or row.length + len(continuation) - 1 > max_length:
            row = open_rows[tuple(context)] = _Row(context)
            rows.append(row)
        row.add(index, continuation)
    return rows


def _batches(rows: list[_Row], tokens: int) -> Iterator[list[_Row]]:
    """Rows of like length, the longest first, at most `tokens` padded tokens a batch (but at least one row)."""
    batch: list[_Row] = []
    for row in sorted(rows, key=lambda row: (len(row.members) == 1, -row.length)):
        mixed = batch and (len(batch[0].members) == 1) != (len(row.members) == 1)
        if batch and (mixed or (len(batch) + 1) * batch[0].length > tokens):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _tensors(rows: list[_Row]) -> tuple[dict[str, Tensor], Tensor, Tensor, list[tuple[int, int]]]:
    """The model's inputs for a batch of rows; positions whose next token is scored, flat over (row, position), and
    those tokens; and (index of the request, scored tokens) of each member, in the order of the positions."""
    width = max(row.length for row in rows)
    ids, positions, segments = (np.zeros((len(rows), width), dtype=np.int64) for _ in range(3))
    scored: list[int] = []
    targets: list[int] = []
    members: list[tuple[int, int]] = []
    for r, row in enumerate(rows):
        start = len(row.context)
        ids[r, :start], positions[r, :start] = row.context, range(start)
        for segment, (index, continuation) in enumerate(row.members, 1):
            end = start + len(continuation) - 1
            ids[r, start:end] = continuation[:-1]
            positions[r, start:end] = range(len(row.context), len(row.context) + end - start)
            segments[r, start:end] = segment
            scored += [r * width + len(row.context) - 1, *range(r * width + start, r * width + end)]
            targets += continuation
            members.append((index, len(continuation)))
            start = end
        segments[r, start:] = -1
    inputs = {"input_ids": torch.from_numpy(ids)}
    if any(len(row.members) > 1 for row in rows):
        seg = torch.from_numpy(segments)
        visible = (seg[:, None, :] == 0) | (seg[:, None, :] == seg[:, :, None])
        inputs["attention_mask"] = (visible & torch.ones(width, width, dtype=torch.bool).tril())[:, None]
        inputs["position_ids"] = torch.from_numpy(positions)
    return inputs, torch.tensor(scored), torch.tensor(targets), members
