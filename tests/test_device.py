"""Which device and how many cores a command takes, on this machine and on one without CPU affinity."""

from __future__ import annotations

import os

import pytest
import torch

from pma.device import choose_device, cpu_cores, cpu_threads


@pytest.mark.parametrize("visible, expected", [(True, "cuda"), (False, "cpu")])
def test_auto_takes_a_gpu_where_one_is_visible(monkeypatch, visible, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: visible)
    assert choose_device("auto") == expected
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize("requested, mend", [("cuda", "give device=cpu"), ("tpu", "choose auto, cpu or cuda")])
def test_a_device_that_is_missing_is_refused_with_the_mend(monkeypatch, requested, mend):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=mend):
        choose_device(requested)


def test_cores_are_counted_where_the_system_has_no_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cpu_cores() == 6


def test_threads_are_the_request_then_the_environment_then_the_cores(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cpu_threads(2) == 2 and cpu_threads(0) == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert cpu_threads(0) == cpu_cores()
