"""Second-order expansion of the loss around a reference: Eq. 6-15 of arXiv 2505.12082, measured.

With theta* a reference, d_i = theta_i - theta*, g and H the gradient and Hessian of the cross-entropy at theta*:

    L(theta_i) ~ L(theta*) + g'd_i + 1/2 d_i'H d_i

and the mean of k snapshots has a lower loss than their mean loss, to this order, when (Eq. 15)

    sum_{i != j} d_i'H d_j  <  (k - 1) sum_i d_i'H d_i.

The paper takes theta* as an optimum and drops g'd_i; it need not: for equal weights that term cancels in the gain.
Right minus left is k sum_i e_i'H e_i with e_i = theta_i - their mean, whatever theta* is: the reference only says
where H is taken. So the inequality holds wherever H is positive semi-definite along the snapshots, at their mean or
elsewhere, and by how much is the predicted gain, mean_i L(theta_i) - L(mean) ~ (right - left) / (2 k^2).

In an MoE the choice of experts is a step function of the weights and has no derivative: H is that of the model with
each token's experts held as the reference chooses them, and the load-balancing loss is no part of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm
from transformers import PreTrainedModel

from pma.weightspace.landscape import snapshot_vectors, weight_vector, write_vector

Window: TypeAlias = Sequence[int]  # tokens of the snapshots of a merge

_TOKENS_AT_ONCE = 2048  # bounds the memory of the graph; the result is a sum over the parts


def derivatives(loss: Tensor, parameters: Sequence[Tensor], directions: Tensor) -> tuple[Tensor, Tensor]:
    """First and second derivatives of `loss` along `directions` (k, parameters), exact by double backward.

    Returns:
        g'd_i (k,) and d_i'H d_j (k, k), float64. The matrix is symmetric up to rounding.
    """
    gradient = _flat(torch.autograd.grad(loss, parameters, create_graph=True))
    along = [gradient @ direction for direction in directions]
    rows = []
    for slope in along:
        hessian_product = _flat(torch.autograd.grad(slope, parameters, retain_graph=True))
        rows.append(torch.stack([hessian_product.double() @ d.double() for d in directions]))
    return torch.stack(along).detach().double(), torch.stack(rows)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _cross_entropy(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    # Not pma.model.loss.loss: that takes its gradient at once and has no second one. Nor has fused attention.
    with sdpa_kernel(SDPBackend.MATH):
        hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
    return F.cross_entropy(F.linear(hidden, model.lm_head.weight).flatten(0, 1).float(), tokens[:, 1:].flatten())


def _parts(model: PreTrainedModel, batches: Tensor) -> list[tuple[Tensor, float]]:
    """Parts of `batches` and their shares of it."""
    parts = batches.to(model.device).split(max(1, _TOKENS_AT_ONCE // (batches.shape[1] - 1)))
    return [(part, len(part) / len(batches)) for part in parts]


@torch.no_grad()
def loss(model: PreTrainedModel, batches: Tensor) -> float:
    """Mean cross-entropy of `batches`, int64 (batch, length + 1), under what `model` holds; nats a token."""
    return sum(share * _cross_entropy(model, part).item() for part, share in _parts(model, batches))


def _loss_of(model: PreTrainedModel, vector: Tensor, batches: Tensor) -> float:
    write_vector(model, vector)
    return loss(model, batches)


def measure(
    snapshots: Mapping[int, Path],
    windows: Sequence[Window],
    reference: dict[str, Tensor],
    model: PreTrainedModel,
    batches: Tensor,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Terms of the expansion around `reference`, and the losses they stand for.

    One Hessian-vector product a snapshot serves all windows: the terms of a window are a part of the whole matrix.

    Args:
        snapshots: folders by tokens, all that the windows name.
        windows: merges to predict, each as the tokens of its snapshots.
        reference: theta*, named as in a model folder: the mean of the snapshots, or a model annealed from the same run.
        model: of their architecture; holds the reference afterwards.
        batches: int64 (batch, length + 1) held-out tokens; derivatives and losses are of their mean cross-entropy.

    Returns:
        Terms: rows term, i, j, value with snapshots named by their tokens: term "hessian" is d_i'H d_j, "gradient"
        g'd_i (j = 0), in nats a token. Losses: rows what, n, interval, tokens, value with what = reference (tokens 0),
        snapshot, or merged, the mean of a window that ends at `tokens`.

    Raises:
        ValueError: for a window of fewer than 2 snapshots, or weights that do not fit the model.
    """
    if short := [window for window in windows if len(window) < 2]:
        raise ValueError(f"windows={short}: give each at least 2 snapshots, the terms are between them")
    order = sorted(snapshots)
    vectors = snapshot_vectors([snapshots[at] for at in order], model)
    origin = weight_vector(model, reference)
    row_of = {at: i for i, at in enumerate(order)}
    singles = [("snapshot", 1, 0, at, vector) for at, vector in zip(order, vectors, strict=True)]
    means = [
        ("merged", len(window), abs(window[1] - window[0]), max(window), vectors[[row_of[at] for at in window]].mean(0))
        for window in windows
    ]
    models = [("reference", 1, 0, 0, origin), *singles, *means]
    bar = tqdm(models, desc="losses", leave=False, disable=None)
    losses = [(*key, _loss_of(model, vector, batches)) for *key, vector in bar]

    write_vector(model, origin)
    parameters = list(model.parameters())
    gradient: Any = 0
    hessian: Any = 0
    for part, share in tqdm(_parts(model, batches), desc="Hessian", leave=False, disable=None):
        first, second = derivatives(_cross_entropy(model, part), parameters, vectors - origin)
        gradient, hessian = gradient + share * first, hessian + share * second
    rows = [("gradient", at, 0, value) for at, value in zip(order, gradient.tolist(), strict=True)]
    rows += [
        ("hessian", i, j, value)
        for i, row in zip(order, hessian.tolist(), strict=True)
        for j, value in zip(order, row, strict=True)
    ]
    return (
        pd.DataFrame(rows, columns=["term", "i", "j", "value"]),
        pd.DataFrame(losses, columns=["what", "n", "interval", "tokens", "value"]),
    )
