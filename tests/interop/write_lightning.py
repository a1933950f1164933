"""Checkpoints of a tiny model by Lightning's own code.

`write_lightning.py OUT` trains and writes OUT/epoch=0-step=N.ckpt, and OUT/expected-N.pt beside; with MERGED behind it
trains on from the checkpoint in that folder. Run in the environment that tests/interop/check.py makes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader


class Model(lightning.LightningModule):
    """A model whose loss goes down."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        return self.layers(batch).square().sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def fit(out: Path, steps: int, checkpoint: Path | None = None) -> Model:
    model = Model()
    keep = ModelCheckpoint(out, "{epoch}-{step}", every_n_train_steps=10, save_top_k=-1)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(accelerator="cpu", max_steps=steps, callbacks=[keep], **quiet)
    items = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    trainer.fit(model, DataLoader(items), ckpt_path=checkpoint)
    assert trainer.global_step == steps
    return model


def write(out: Path) -> None:
    fit(out, 30)
    for step in (10, 20, 30):
        kept = torch.load(out / f"epoch=0-step={step}.ckpt", weights_only=True)
        torch.save(kept["state_dict"], out / f"expected-{step}.pt")


def resume(merged: Path) -> None:
    model = fit(merged.parent, 31, merged / "epoch=0-step=30.ckpt")
    states = model.trainer.optimizers[0].state.values()
    assert {float(state["step"]) for state in states} == {31.0}


if __name__ == "__main__":
    write(Path(sys.argv[1])) if len(sys.argv) == 2 else resume(Path(sys.argv[2]))
