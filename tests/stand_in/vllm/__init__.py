"""A stand-in for vLLM: what lm-eval's vLLM model asks of it, answered by transformers on the CPU.

Weights are rounded to the type asked for, as vLLM stores them; what is computed with them is fp32.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

started: list[dict] = []  # the options of every engine


class SamplingParams:
    """Greedy decoding, as temperature 0."""

    def __init__(self, max_tokens: int, prompt_logprobs: int | None = None, stop: tuple = (), **_: object) -> None:
        self.max_tokens, self.prompt_logprobs, self.stop = max_tokens, prompt_logprobs, stop


def TokensPrompt(prompt_token_ids: list[int]) -> list[int]:  # noqa: N802, vLLM's name
    """The tokens."""
    return prompt_token_ids


class LLM:
    """An engine."""

    def __init__(self, model: str, dtype: str, tensor_parallel_size: int, **options: object) -> None:
        options |= {"model": model, "dtype": dtype, "tensor_parallel_size": tensor_parallel_size}
        started.append(options)
        stored = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype), local_files_only=True)
        self._model = stored.float().eval()
        self._tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
        longest = options["max_model_len"] or stored.config.max_position_embeddings
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=longest))

    @torch.inference_mode()
    def generate(self, prompts: list[list[int]], sampling_params: list[SamplingParams], **_: object) -> list:
        """Answers in the order of the prompts."""
        for tokens, asked in zip(prompts, sampling_params, strict=True):  # as vLLM refuses
            assert len(tokens) + asked.max_tokens <= self.llm_engine.model_config.max_model_len
        if not sampling_params[0].prompt_logprobs:
            texts = map(self._continued, prompts, sampling_params)
            return [SimpleNamespace(outputs=[SimpleNamespace(text=text)]) for text in texts]
        batches = [prompts[start : start + 64] for start in range(0, len(prompts), 64)]
        return [SimpleNamespace(prompt_logprobs=row) for batch in batches for row in self._logprobs(batch)]

    def _continued(self, tokens: list[int], asked: SamplingParams) -> str:
        generated = self._model.generate(torch.tensor([tokens]), max_new_tokens=asked.max_tokens, do_sample=False)
        text = self._tokenizer.decode(generated[0, len(tokens) :])
        for stop in asked.stop:
            text = text.split(stop)[0]
        return text

    def _logprobs(self, batch: list[list[int]]) -> Iterator[list[dict[int, float] | None]]:
        """For each position but the first, the most likely token and the prompt's own with their log-probabilities."""
        padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(tokens) for tokens in batch], batch_first=True)
        for tokens, logprobs in zip(batch, self._model(padded).logits.log_softmax(-1), strict=True):
            rows = logprobs[: len(tokens) - 1]
            best, own = rows.max(-1), rows.gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
            columns = best.indices.tolist(), best.values.tolist(), tokens[1:], own.tolist()
            yield [None, *({top: high, token: value} for top, high, token, value in zip(*columns, strict=True))]
