"""Common ground of the tests: one thread, no W&B, no network for the hub; the longest files first."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest_plugins = ["smoke_runs"]

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

LONGEST = (
    "test_end_to_end.py",
    "test_stress.py",
    "test_many_processes.py",
    "test_docs.py",
)  # begun last, they would end last


@pytest.fixture
def vllm(monkeypatch):
    """tests/stand_in/vllm, where lm-eval expects vLLM."""
    from lm_eval.api import registry

    def forget() -> None:
        registry._materialise_placeholder.cache_clear()
        for name in [
            name for name in sys.modules if name.partition(".")[0] == "vllm" or name.endswith("vllm_causallms")
        ]:
            del sys.modules[name]

    monkeypatch.syspath_prepend(str(Path(__file__).parent / "stand_in"))
    monkeypatch.setitem(registry.model_registry._objs, "vllm", "lm_eval.models.vllm_causallms:VLLM")
    forget()
    import vllm

    yield vllm
    forget()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
