"""Reinforcement learning with verifiable answers: sample answers, reward the right ones, climb the policy gradient.

REINFORCE, one step a batch: the advantage of an answer is its reward minus the mean reward of all answers to its
question (GRPO, arXiv 2402.03300, without dividing by the standard deviation, as arXiv 2503.20783 advises, and without a
KL term).
The questions are reasoning-gym's, of a domain of the corpus, and none of them is an item of a suite.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel

from pma.corpus import reward_questions


class Rollouts:
    """Questions in an order that depends on (seed, step) only, and answers sampled by the model as it stands.

    Args:
        cfg: a training job with train.reward_domain.
        corpus: its folder.
        model: in training, in one process.
    """

    def __init__(self, cfg: DictConfig, corpus: Path, model: PreTrainedModel) -> None:
        tokenizer = AutoTokenizer.from_pretrained(corpus / "tokenizer")
        self._end = int(tokenizer.eos_token_id)
        pairs = reward_questions(cfg.data, corpus, cfg.train.reward_domain)
        prompts = tokenizer([prompt for prompt, _ in pairs])["input_ids"]
        answers = [[*ids, self._end] for ids in tokenizer([answer for _, answer in pairs])["input_ids"]]
        room = cfg.scale.sequence_length - max(map(len, answers))  # for a prompt
        fitting = [(p, a) for p, a in zip(prompts, answers, strict=True) if len(p) <= room]
        if len(fitting) < cfg.train.reward_questions:
            raise ValueError(
                f"train.reward_questions={cfg.train.reward_questions}: only {len(fitting)} questions of domain "
                f"{cfg.train.reward_domain} fit into scale.sequence_length={cfg.scale.sequence_length}; give fewer"
            )
        self._prompts, self._answers = zip(*fitting, strict=True)
        self._seed = cfg.seed
        self._questions, self._count = cfg.train.reward_questions, cfg.train.reward_answers
        self._model = model
        self._generation = GenerationConfig(
            do_sample=True,
            max_new_tokens=max(map(len, self._answers)),
            top_k=0,
            eos_token_id=self._end,
            pad_token_id=self._end,
        )

    def backward(self, step: int) -> Tensor:
        """Add the gradient of minus the expected reward to the model's `.grad`.

        Returns:
            Minus the mean reward of the step's answers, detached: the share of right ones, 0 to 1.
        """
        chosen = self._chosen(step)
        torch.manual_seed(int(np.random.SeedSequence([self._seed, step]).generate_state(1)[0]))
        prompts = [self._prompts[i] for i in chosen for _ in range(self._count)]
        sampled = self._sample(prompts)
        rewards = right(sampled, [self._answers[i] for i in chosen for _ in range(self._count)], self._end)
        by_question = rewards.view(len(chosen), self._count)
        advantages = (by_question - by_question.mean(1, keepdim=True)).flatten()
        unequal = advantages.nonzero().flatten().tolist() or [0]  # of the others the gradient is zero
        likelihoods = self._log_likelihoods([prompts[i] for i in unequal], sampled[unequal])
        loss = -(advantages[unequal] * likelihoods).sum() / len(prompts)
        loss.backward()
        return -rewards.mean()

    def _chosen(self, step: int) -> np.ndarray:
        """Indices of a step's questions; every epoch asks them in a new order."""
        epoch, index = divmod(step, len(self._prompts) // self._questions)
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._prompts))
        return order[index * self._questions : (index + 1) * self._questions]

    @torch.no_grad()
    def _sample(self, prompts: list[list[int]]) -> Tensor:
        """Tokens sampled after each prompt, int64 (prompts, longest answer), filled up with ends."""
        width, device = max(map(len, prompts)), self._model.device
        ids = torch.tensor([[self._end] * (width - len(p)) + p for p in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        # A mixture of experts would compute its load-balancing loss, of the one new token with the mask of all.
        quiet = {"output_router_logits": False} if hasattr(self._model.config, "output_router_logits") else {}
        rows = self._model.generate(input_ids=ids, attention_mask=mask, generation_config=self._generation, **quiet)
        sampled = rows[:, width:]
        missing = (self._generation.max_new_tokens or 0) - sampled.shape[1]
        return torch.nn.functional.pad(sampled, (0, missing), value=self._end)

    def _log_likelihoods(self, prompts: list[list[int]], sampled: Tensor) -> Tensor:
        """Log-likelihood of each sampled answer up to its end, nats."""
        ended = (sampled == self._end).cumsum(1) - (sampled == self._end).long()  # ends before this token
        lengths = (ended == 0).sum(1).tolist()
        rows = [p + row[:n] for p, row, n in zip(prompts, sampled.tolist(), lengths, strict=True)]
        longest = max(map(len, rows))
        # Filled up on the right, which a causal model does not see.
        ids = torch.tensor([row + [self._end] * (longest - len(row)) for row in rows], device=sampled.device)
        answer = torch.zeros_like(ids[:, 1:], dtype=torch.bool)
        for i, (prompt, n) in enumerate(zip(prompts, lengths, strict=True)):
            answer[i, len(prompt) - 1 : len(prompt) - 1 + n] = True
        hidden = self._model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[answer]
        log_probabilities = self._model.lm_head(hidden).float().log_softmax(-1)
        of_tokens = log_probabilities.gather(1, ids[:, 1:][answer][:, None]).flatten()
        return torch.stack([part.sum() for part in of_tokens.split(lengths)])


def right(sampled: Tensor, answers: list[list[int]], end: int) -> Tensor:
    """1.0 for each sampled answer that is the right one token by token, its end included, else 0.0.

    Args:
        sampled: int64 (answers, length), filled up with ends.
        answers: each with its end.
    """
    wanted = torch.tensor([a + [end] * (sampled.shape[1] - len(a)) for a in answers], device=sampled.device)
    return (sampled == wanted).all(1).float()
