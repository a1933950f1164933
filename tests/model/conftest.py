"""What the tests of models share: smoke models of each kind, tokens, their loss and its gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from pma.config import CONF_DIR, ModelConfig
from pma.model.build import build
from pma.model.loss import loss

DENSE, MOE = "dense_411m", "moe_1.3b_13b"


@pytest.fixture(params=[DENSE, MOE, f"{DENSE} without-qk-norm", f"{MOE} without-qk-norm"])
def name(request) -> str:
    """Each kind of model."""
    return request.param


@pytest.fixture(params=[MOE, f"{MOE} without-qk-norm"])
def moe_name(request) -> str:
    """Each kind of MoE."""
    return request.param


@pytest.fixture(scope="session")
def read() -> Callable[[Path], ModelConfig]:
    """Read a file of conf/model."""

    def read_config(path: Path) -> ModelConfig:
        config = OmegaConf.merge(OmegaConf.structured(ModelConfig), OmegaConf.load(path))
        OmegaConf.set_readonly(config, True)
        return config

    return read_config


@pytest.fixture(scope="session")
def smoke(read) -> Callable[[str], ModelConfig]:
    """The config of a smoke model."""

    def config(name: str) -> ModelConfig:
        name, _, changed = name.partition(" ")
        return replace(OmegaConf.to_object(read(CONF_DIR / "model" / "smoke" / f"{name}.yaml")), qk_norm=not changed)

    return config


@pytest.fixture(scope="session")
def make(smoke) -> Callable[..., nn.Module]:
    """Build a smoke model from a seed."""

    def model(name: str, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return build(smoke(name), max_positions=64)

    return model


@pytest.fixture(scope="session")
def some_tokens() -> Callable[..., Tensor]:
    """Random tokens (batch, length + 1), always the same."""

    def tokens(batch: int = 4, length: int = 32) -> Tensor:
        return torch.randint(512, (batch, length + 1), generator=torch.Generator().manual_seed(0))

    return tokens


@pytest.fixture(scope="session")
def next_token_loss() -> Callable[[nn.Module, Tensor], tuple[Tensor, Tensor]]:
    """`loss` of tokens, each predicted from those before it."""
    return lambda model, tokens: loss(model, tokens[:, :-1], tokens[:, 1:])


@pytest.fixture(scope="session")
def gradients() -> Callable[[nn.Module], dict[str, Tensor]]:
    """Copies of a model's gradients by name."""
    return lambda model: {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.fixture(scope="session")
def sort_tokens_by_expert() -> Callable[[nn.Module], None]:
    """Have a model's experts compute on the CPU as on a GPU."""

    def change(model: nn.Module) -> None:
        for module in model.modules():
            if hasattr(module, "sorted_forward"):
                module.forward = module.sorted_forward

    return change
