"""Checkpoints of any trainer's folder: complete or not, windows over them, and merges of these."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch.distributed import checkpoint

import pma
from pma.json_files import MANIFEST
from pma.layout import snapshot_dir
from pma.merge import decay
from pma.merge.__main__ import MergeJob, main
from pma.merge.checkpoints import RunCheckpoints, Span, complete, descending
from pma.merge.recipes import choose

OLD = time.time() - 60  # longer ago than a checkpoint has to be quiet


@pytest.fixture
def trainer(tmp_path, model_folder):
    """A folder of the Hugging Face Trainer: checkpoint-100 to -600 with their step as weights, the newest cut short."""
    for step in (100, 200, 300, 400, 500, 600):
        folder = model_folder(tmp_path / "run" / f"checkpoint-{step}", {"w": torch.full((3,), float(step))})
        (folder / "trainer_state.json").write_text("{}" if step < 600 else '{"global_')
    (tmp_path / "run" / "runs").mkdir()
    return tmp_path / "run"


def job(**values) -> object:
    return OmegaConf.structured(MergeJob(**{"method": "sma", "output": "out", **values}))


def value(folder: Path) -> float:
    return load_file(folder / "model.safetensors")["w"][0].item()


def test_a_checkpoint_is_taken_when_its_trainer_has_written_all_of_it(tmp_path):
    trainer = tmp_path / "checkpoint-10"
    trainer.mkdir()
    save_file({"w": torch.ones(3)}, trainer / "model.safetensors")
    assert not complete(trainer)
    (trainer / "trainer_state.json").write_text('{"global_')
    assert not complete(trainer)
    (trainer / "trainer_state.json").write_text('{"global_step": 10}')
    assert complete(trainer)
    for titan in (tmp_path / "step-9", tmp_path / "step10" / "model_and_optim"):
        checkpoint.save({"w": torch.ones(3)}, checkpoint_id=titan, no_dist=True)
        named = titan if titan.name == "step-9" else titan.parent
        assert complete(named)
        (titan / ".metadata").unlink()
        assert not complete(named)


def test_one_that_no_trainer_marks_is_taken_when_it_is_quiet_and_whole(tmp_path):
    folder = tmp_path / "step_5"
    folder.mkdir()
    save_file({"w": torch.ones(3)}, folder / "model.safetensors")
    assert not complete(folder)
    os.utime(folder / "model.safetensors", (OLD, OLD))
    assert complete(folder)
    ahead = time.time() + 3600  # as a host's clock has it that runs ahead
    os.utime(folder / "model.safetensors", (ahead, ahead))
    assert complete(folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-4])
    os.utime(folder / "model.safetensors", (OLD, OLD))
    assert not complete(folder)


def test_one_that_we_may_not_read_is_said_to_be_so(trainer, monkeypatch):
    def forbidden(folder, **options):
        raise PermissionError(13, "Permission denied", f"{folder}/model.safetensors")

    monkeypatch.setattr("pma.merge.checkpoints.open_source", forbidden)
    with pytest.raises(PermissionError, match=r"model\.safetensors"):
        complete(trainer / "checkpoint-100")


@pytest.mark.parametrize(
    "span,taken",
    [
        ({"last": 2}, [400, 500]),
        ({"last": 2, "every": 2}, [300, 500]),
        ({"last": 2, "end": 300}, [200, 300]),
        ({"last": 3, "interval": 200}, [100, 300, 500]),
        ({"last": 2, "interval": 200, "end": 400}, [200, 400]),
        ({"end": 300}, [100, 200, 300]),
    ],
)
def test_a_window_holds_complete_checkpoints_alone(trainer, span, taken):
    run = RunCheckpoints(trainer)
    assert run.window(Span(**span)) == taken


@pytest.mark.parametrize(
    "span,message",
    [
        ({"last": 6}, "5 checkpoints stand up to 500.*last=5.*left out.*checkpoint-600"),
        ({"last": 2, "end": 250}, "no checkpoint stands there; the nearest: end=200, end=300"),
        ({"last": 2, "interval": 150}, "no snapshot at 350"),
        ({"last": 2, "interval": 100, "every": 2}, "without every"),
        ({"interval": 100}, "goes with last=N"),
        ({"last": 0}, "at least 1"),
        ({"last": 2, "every": 0}, "at least 1"),
    ],
)
def test_a_window_that_cannot_be_filled_is_refused(trainer, span, message):
    with pytest.raises(ValueError, match=message):
        RunCheckpoints(trainer).window(Span(**span))


def test_positions_are_in_tokens_where_a_step_has_some(trainer, tmp_path):
    assert RunCheckpoints(trainer, tokens_per_step=64).window(Span(2, interval=12800, end=25600)) == [12800, 25600]
    snapshot_dir(tmp_path / "ours", 512).mkdir(parents=True)
    with pytest.raises(ValueError, match="count tokens already"):
        RunCheckpoints(tmp_path / "ours", tokens_per_step=64)


def test_a_run_without_checkpoints_says_what_lies_there(tmp_path, trainer):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "adapter_model.safetensors").touch()
    with pytest.raises(ValueError, match="no checkpoints there.*it holds adapter_model.safetensors"):
        RunCheckpoints(tmp_path / "other")
    with pytest.raises(ValueError, match="no such folder"):
        RunCheckpoints(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="this is one checkpoint; give the folder above"):
        RunCheckpoints(trainer / "checkpoint-100")
    with pytest.raises(ValueError, match="no checkpoint is written completely yet .step_7"):
        (tmp_path / "new" / "step_7").mkdir(parents=True)
        RunCheckpoints(tmp_path / "new")


def test_a_merge_by_call_takes_the_last_and_tells_what_it_left_out(trainer, tmp_path, capsys):
    out = pma.merge(trainer, tmp_path / "out", last=2, every=2)
    assert value(out) == 400
    manifest = json.loads((out / MANIFEST).read_text())
    assert manifest["recipe"] == {"method": "sma", "last": 2, "every": 2}
    assert [Path(source["folder"]).name for source in manifest["sources"]] == ["checkpoint-300", "checkpoint-500"]
    assert "checkpoint-600: left out, for it is not written completely" in capsys.readouterr().err


def test_a_gap_is_told_and_a_decay_looks_at_it(trainer, capsys):
    (trainer / "checkpoint-300").rename(trainer / "aside")
    chosen = choose(job(run_dir=str(trainer), last=4, method="cosine"))
    assert any("a gap of 200 between checkpoint-200 and checkpoint-400" in line for line in chosen.warnings)
    even = choose(job(run_dir=str(trainer), last=2, method="linear"))
    assert not any("gap" in line for line in even.warnings) and even.merges[0].weights == (0.5, 0.5)
    uneven = choose(job(run_dir=str(trainer), last=4, method="linear")).merges[0].weights
    assert uneven == pytest.approx(decay(lambda x: 1 - x, [100, 200, 400, 500]))


def test_many_merges_of_any_window_in_one_pass(trainer, tmp_path):
    outputs = [str(tmp_path / name) for name in "abc"]
    merges = [
        {"output": outputs[0]},
        {"last": 1, "output": outputs[1]},
        {"weights": [2.0, -1.0], "last": 2, "every": 2, "end": 400, "output": outputs[2]},
    ]
    main(OmegaConf.merge(job(run_dir=str(trainer), last=3, output=None), {"merges": merges}))
    assert [value(Path(output)) for output in outputs] == [400, 500, 0]


def test_many_merges_of_a_list_of_sources(trainer):
    sources = [str(trainer / f"checkpoint-{step}") for step in (100, 200, 300)]
    merges = [{"method": "sma", "output": "a"}, {"method": "wma", "last": 2, "output": "b"}]
    chosen = choose(OmegaConf.merge(job(sources=sources, method=None, output=None), {"merges": merges}))
    assert [merge.weights for merge in chosen.merges] == [
        pytest.approx((1 / 3, 1 / 3, 1 / 3)),
        pytest.approx((0, 1 / 3, 2 / 3)),
    ]


@pytest.mark.parametrize(
    "values,message",
    [
        ({"run_dir": "RUN"}, "also give last=N"),
        ({"run_dir": "RUN", "last": 2, "n": 2}, "two names of the number of checkpoints"),
        ({"run_dir": "RUN", "last": 2, "positions": [1.0, 2.0]}, "the checkpoints of a run say themselves"),
        ({"run_dir": "RUN", "last": 2, "merges": [{"output": "a"}]}, "each of merges=.* has an output of its own"),
        ({"run_dir": "RUN", "last": 2, "output": None, "merges": [{"last": 2}]}, "give output=DIR"),
        ({"sources": ["a", "b"], "interval": 2}, "interval: goes with run_dir"),
        ({"sources": ["a", "b"], "method": "linear", "positions": [1.0]}, "positions: 1 given for 2 sources"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(trainer, values, message):
    values = {key: str(trainer) if value == "RUN" else value for key, value in values.items()}
    with pytest.raises(ValueError, match=message):
        choose(OmegaConf.merge(job(), values))


def test_sources_whose_numbers_fall_are_warned_of(trainer, capsys):
    (line,) = descending(["run/step-100", "run/step-300", "run/step-200"])
    assert line.startswith("sources: run/step-200 comes after run/step-300")
    assert descending(["a/step-300", "b/step-200"]) == []  # of two runs
    assert descending(["org/model@step9", "org/model@step10"]) == []
    assert len(descending(["org/model@step10", "org/model@step9"])) == 1
