"""Checkpoints are found by the numbers in their names, and taken when their trainer has written all of them."""

from __future__ import annotations

import torch
from safetensors.torch import save_file
from torch.distributed import checkpoint

from pma.watch.find import complete, positions


def test_a_checkpoint_is_taken_when_its_trainer_has_written_all_of_it(tmp_path):
    trainer = tmp_path / "checkpoint-10"
    trainer.mkdir()
    save_file({"w": torch.ones(3)}, trainer / "model.safetensors")
    assert not complete(trainer)
    (trainer / "trainer_state.json").write_text('{"global_')
    assert not complete(trainer)
    (trainer / "trainer_state.json").write_text('{"global_step": 10}')
    assert complete(trainer)
    titan = tmp_path / "step-9"
    checkpoint.save({"w": torch.ones(3)}, checkpoint_id=titan, no_dist=True)
    assert complete(titan)
    (titan / ".metadata").unlink()
    assert not complete(titan)


def test_positions_are_numbers_in_their_order(tmp_path):
    for name in ("step-9", "step-100", "checkpoint-10", "step-11x", "other"):
        (tmp_path / name).mkdir()
    assert list(positions(tmp_path)) == [9, 10, 100]
    (tmp_path / "checkpoints" / "iter_0000005").mkdir(parents=True)
    assert list(positions(tmp_path)) == [5]
    assert positions(tmp_path / "nothing") == {}
