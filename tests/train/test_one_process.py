"""Steps in one process: golden losses, and bits that do not depend on the number of threads."""

from __future__ import annotations

import pytest
import torch

from pma.model.build import build
from pma.model.loss import loss
from pma.train.objective import clip_gradients, make_optimizer, training_loss
from pma.train.one_process import MicroBatches

MODELS = {"dense": "dense_411m", "moe": "moe_1.3b_13b"}
GOLDEN = {"dense": (6.16597, 5.63917, 4.96088), "moe": (6.16333, 5.70424, 5.03998)}  # steps 1, 10, 20


@pytest.fixture(scope="module")
def twenty_losses(shared_lab):
    """Losses of twenty steps on tokens with structure to learn: a noisy walk over the vocabulary."""
    known: dict[tuple[str, int, int], list[float]] = {}

    def run(kind: str, threads: int, micro_batches: int) -> list[float]:
        cfg = shared_lab.config(f"model=smoke/{MODELS[kind]}")
        torch.manual_seed(0)
        model = build(cfg.model, 32)
        optimizer = make_optimizer(cfg.train, model)
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 3e-3
        parts = MicroBatches(model, loss, micro_batches, threads)
        generator = torch.Generator().manual_seed(1)
        walk = torch.randint(0, 4, (20, 8, 33), generator=generator).cumsum(-1) % cfg.model.vocab_size
        losses = []
        for tokens in walk:
            losses.append(parts.backward(tokens[:, :-1], tokens[:, 1:]).item())
            clip_gradients(list(model.parameters()), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return losses

    def once(kind: str, threads: int, micro_batches: int) -> list[float]:
        key = kind, threads, micro_batches
        if key not in known:
            known[key] = run(*key)
        return known[key]

    return once


@pytest.mark.parametrize("kind", MODELS)
def test_golden_losses(twenty_losses, kind):
    losses = twenty_losses(kind, 1, 2)
    assert [losses[i] for i in (0, 9, 19)] == pytest.approx(GOLDEN[kind], rel=1e-3)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("threads", [2, 4])
def test_bits_do_not_depend_on_threads(twenty_losses, kind, threads):
    assert twenty_losses(kind, threads, 4) == twenty_losses(kind, 1, 4)


def test_micro_batches_add_up_to_the_gradient_of_the_whole_batch(twenty_losses):
    assert twenty_losses("dense", 1, 1) == pytest.approx(twenty_losses("dense", 2, 4), rel=1e-4)


def test_without_a_compiler_training_goes_on_and_says_so_by_the_world(shared_lab, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    lines: list[str] = []
    step = training_loss(shared_lab.config("compile=true"), torch.device("cpu"), lines.append)
    model = build(shared_lab.config().model, 32)
    tokens = torch.zeros(1, 8, dtype=torch.int64)
    assert torch.equal(step(model, tokens, tokens)[0], loss(model, tokens, tokens)[0])
    assert lines == ["no C++ compiler (g++) here: training without torch.compile"]
