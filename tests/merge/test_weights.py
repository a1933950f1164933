"""Weights of the methods against their definitions, and of decays against the updates they replay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pma.merge import decay, ema, equivalent_decay, explicit, method_weights, sma, wma


@given(n=st.integers(1, 40), alpha=st.floats(0.01, 1.0))
def test_ema_weights_are_the_papers_recursion(n, alpha):
    models = np.eye(n)  # row i is "model i": the recursion's result is then its vector of weights
    recursive = models[0]
    for model in models[1:]:
        recursive = alpha * model + (1 - alpha) * recursive
    np.testing.assert_allclose(ema(n, alpha), recursive, rtol=1e-12, atol=1e-15)


@given(n=st.integers(1, 200))
def test_sma_and_wma_weights(n):
    np.testing.assert_allclose(sma(n), np.full(n, 1 / n))
    ranks = np.arange(1, n + 1)
    np.testing.assert_allclose(wma(n), ranks / ranks.sum())


@pytest.mark.parametrize("method,alpha", [("ema", None), ("sma", 0.1), ("ema", 0.0), ("ema", 1.5), ("mean", None)])
def test_impossible_methods_are_refused(method, alpha):
    with pytest.raises(ValueError, match="alpha|method"):
        method_weights(method, 3, alpha)


def test_explicit_weights_must_match_in_number():
    with pytest.raises(ValueError, match="2 given for 3"):
        explicit([0.5, 0.5], 3)


@given(n=st.integers(2, 30))
def test_linear_decay_is_sma_and_the_decay_of_weights_is_what_made_them(n):
    np.testing.assert_allclose(method_weights("linear", n), sma(n), atol=1e-12)
    for method in ("linear", "cosine", "1-sqrt"):
        weights = method_weights(method, n)
        assert sum(weights) == pytest.approx(1) and min(weights) >= 0
        x = np.arange(1, n) / n
        shape = {"linear": 1 - x, "cosine": (1 + np.cos(np.pi * x)) / 2, "1-sqrt": 1 - np.sqrt(x)}[method]
        np.testing.assert_allclose(equivalent_decay(weights), shape, atol=1e-12)


def test_a_decay_over_uneven_spacing_replays_the_updates():
    # Snapshots of a run whose update between tokens a and b is the vector (b - a) e_k; the merge must be the first
    # snapshot plus each update times the factor at its end.
    tokens = [0, 1, 3, 4, 8]
    weights = decay(lambda x: 1 - x, tokens)
    updates = np.diag(np.diff(tokens)).astype(float)
    snapshots = np.vstack([np.zeros(4), np.cumsum(updates, axis=0)])
    factors = 1 - np.array(tokens[1:]) / 10  # 8 tokens, and one mean interval of 2
    np.testing.assert_allclose(np.array(weights) @ snapshots, factors @ updates)
    with pytest.raises(ValueError, match="ascending"):
        decay(lambda x: 1 - x, [0, 2, 1])
    with pytest.raises(ValueError, match="rises"):
        decay(lambda x: x, tokens)
