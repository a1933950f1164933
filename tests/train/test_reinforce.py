"""Reinforcement learning: which answers are right, how likely they are, and that a policy learns and goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pma.corpus import prepare, reward_questions
from pma.model.build import build
from pma.train import loop
from pma.train.reinforce import Rollouts, right

END = 0
POLICY = [
    "train.part=instruct",
    "train.reward_domain=reasoning",
    "train.reward_questions=4",
    "train.reward_answers=4",
    "train.total_tokens=5120",
    "schedule.peak_lr=1e-3",
]


@pytest.fixture(scope="module")
def rollouts(shared_lab) -> Rollouts:
    """Of an untrained model."""
    cfg = shared_lab.config(*POLICY)
    torch.manual_seed(0)
    return Rollouts(cfg, prepare(cfg.data, Path(cfg.data_dir)), build(cfg.model, cfg.scale.sequence_length))


def test_an_answer_is_right_with_its_end_and_nothing_more():
    sampled = torch.tensor([[5, 6, END], [5, END, END], [5, 6, 7], [5, 6, END]])
    assert right(sampled, [[5, 6, END], [5, 6, END], [5, 6, END], [5, END]], END).tolist() == [1, 0, 0, 0]


def test_the_likelihood_of_an_answer_is_the_model_s_own(rollouts):
    """Also where prompts and answers have other lengths, and an answer never ends."""
    prompts, sampled = [[7, 8, 9], [7]], torch.tensor([[5, END, END], [6, 4, 3]])
    with torch.no_grad():
        found = rollouts._log_likelihoods(prompts, sampled)
        for prompt, answer, likelihood in zip(prompts, ([5, END], [6, 4, 3]), found, strict=True):
            logits = rollouts._model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
            each = [logits[len(prompt) - 1 + i, token] for i, token in enumerate(answer)]
            assert likelihood.item() == pytest.approx(sum(each).item(), rel=1e-5)


def test_sampling_is_from_the_model_whatever_stands_on_the_left(rollouts):
    """The share of a first token, of a prompt that is filled up on the left, is its probability."""
    short, long = [7, 8, 9], [*range(20, 60)]
    torch.manual_seed(1)
    first = rollouts._sample([short] * 3000 + [long])[:3000, 0]
    with torch.no_grad():
        probabilities = rollouts._model(torch.tensor([short])).logits[0, -1].softmax(-1)
    shares = torch.bincount(first, minlength=len(probabilities)) / 3000
    likely = probabilities.topk(5).indices
    assert (shares[likely] - probabilities[likely]).abs().max() < 5 * (probabilities[likely].max() / 3000) ** 0.5


def test_no_question_is_an_item(shared_lab):
    cfg = shared_lab.config(*POLICY)
    corpus = prepare(cfg.data, Path(cfg.data_dir))
    prompts = [prompt for prompt, _ in reward_questions(cfg.data, corpus, "reasoning")]
    lines = (corpus / "items" / "instruct" / "reasoning.jsonl").read_text().splitlines()
    assert len(set(prompts)) == len(prompts) > 1000
    assert not set(prompts) & {json.loads(line)["context"] for line in lines}


def test_a_policy_learns_what_is_rewarded(shared_lab, metrics, monkeypatch):
    """Where every answer whose first token is even is right."""
    monkeypatch.setattr("pma.train.reinforce.right", lambda sampled, answers, end: (sampled[:, 0] % 2 == 0).float())
    faster = ["schedule.peak_lr=1e-2", "train.reward_questions=16", "train.log_interval=1"]
    run = shared_lab.train(*POLICY, *faster, "train.total_tokens=10240", "run_id=even")
    rewards = [-row["loss"] for row in metrics(run)]
    assert sum(rewards[-10:]) / 10 > sum(rewards[:10]) / 10 + 0.1  # each a mean of 640 answers


def test_a_stopped_policy_goes_on_with_the_same_bits(shared_lab, metrics, last_weights, assert_same_bits):
    options = [*POLICY, "train.checkpoint_interval=2560"]
    whole = shared_lab.train(*options, "run_id=policy")
    shared_lab.train(*options, "run_id=policy_stopped", "stop=2560")
    stopped = shared_lab.train(*options, "run_id=policy_stopped")
    assert_same_bits(last_weights(stopped), last_weights(whole))
    assert metrics(stopped) == metrics(whole)


@pytest.mark.parametrize(
    "option, message",
    [
        ("train.reward_domain=dialogue", "choose a domain of data.generated: math, reasoning"),
        ("train.reward_answers=1", "give at least 2, to compare them"),
        ("train.reward_questions=null", "train.reward_questions=None: give at least 1"),
    ],
)
def test_impossible_options_are_refused(shared_lab, option, message):
    with pytest.raises(ValueError, match=message):
        shared_lab.train(*POLICY, option, "run_id=impossible")


def test_several_processes_are_refused(shared_lab, monkeypatch):
    monkeypatch.setattr(loop, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="one process; start this run without torchrun"):
        shared_lab.train(*POLICY, "run_id=impossible")
