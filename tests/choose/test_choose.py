"""`python -m pma.choose`: a search that is killed and goes on, what it writes, and checkpoints of several kinds."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest
import torch
from torch.distributed import checkpoint as dcp
from transformers import AutoModelForCausalLM

from pma.choose.__main__ import main
from pma.choose.judge import Judge


def _counted(score, seen):
    def counted(self, candidate, trial, half):
        seen.append(candidate)
        return score(self, candidate, trial, half)

    return counted


def test_a_search_that_was_killed_goes_on_and_says_what_to_do(make_job, world, tmp_path, capsys, monkeypatch):
    main(make_job(budget=0.0))
    assert "16 candidates open" in (printed := capsys.readouterr().out) and "no merge is scored yet" in printed
    main(make_job())
    printed = capsys.readouterr().out
    assert "5 checkpoints up to 50, 17 candidates (1 scored before), 24 documents" in printed
    gain, half = re.search(r"the best merge saves (\S+) ± (\S+) bits per byte over the last", printed).groups()
    assert float(gain) > float(half) > 0  # noise around one model: its middle is better
    assert "lie like a cloud" in printed
    command = rf"python -m pma.merge run_dir={world}/run last=\d .*end=50 method=\w+ output=merged"
    assert (command := re.search(rf"next: ({command})", printed)[1])

    path = tmp_path / "out" / "candidates.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    rows = [json.loads(line) for line in lines]
    assert len({row["half"] for row in rows}) == 2 and 17 + 10 <= len(rows) <= 17 + 12
    assert (tmp_path / "out" / "heatmap.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "out" / "index.html").read_text()
    assert command in page and f"saves {gain} ± {half} bits per byte" in page and page.count("<svg") == 2
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", page)  # one file
    assert {p.name for p in path.parent.iterdir()} == {"candidates.jsonl", "heatmap.png", "index.html"}

    path.write_text("".join(lines[:-8]) + lines[-8][:40])  # as a kill leaves it
    monkeypatch.setattr(Judge, "_score", _counted(Judge._score, seen := []))
    main(make_job())
    again = capsys.readouterr().out
    assert len(seen) == 8 and again.splitlines()[-16:] == printed.splitlines()[-16:]
    assert path.read_text().splitlines(keepends=True) == lines


@pytest.mark.parametrize("given,unit", [({"suite": "proxy"}, "bits per byte"), ({"tasks": ["sums"]}, "points of acc")])
def test_suites_and_tasks_choose_as_well(given, unit, make_job, world, capsys):
    main(make_job(**given, corpus=str(world / "corpus"), include_path=str(world / "tasks")))
    printed = capsys.readouterr().out
    assert re.search(rf"the best merge (?:saves|gains|costs|loses) [\d.]+ ± [\d.]+ {unit}", printed)


def _state(world, step):
    return AutoModelForCausalLM.from_pretrained(world / "run" / f"checkpoint-{step}").state_dict()


@pytest.mark.parametrize("kind", ["dcp", "ckpt"])
def test_checkpoints_without_config_are_scored_with_assets(kind, make_job, world, tmp_path, capsys):
    for step in (10, 20, 30, 40, 50):
        state = {name: tensor for name, tensor in _state(world, step).items() if name != "lm_head.weight"}
        if kind == "dcp":
            dcp.save(state, checkpoint_id=tmp_path / "bare" / f"step-{step}", no_dist=True)
        else:
            (tmp_path / "bare").mkdir(exist_ok=True)
            torch.save({"state_dict": state}, path := tmp_path / "bare" / f"epoch=0-step={step}.ckpt")
            os.utime(path, (0, 0))  # written long ago, so surely complete
    with pytest.raises(ValueError, match="no tokenizer there; assets=FOLDER"):
        main(make_job(run_dir=str(tmp_path / "bare")))
    assets = str(world / "run" / "checkpoint-50")
    main(make_job(run_dir=str(tmp_path / "bare"), assets=assets, methods=["sma"]))
    bare = capsys.readouterr().out
    assert f"assets={assets}" in bare.splitlines()[-1]
    main(make_job(output=str(tmp_path / "whole"), methods=["sma"]))
    of = re.compile(r"the best merge saves .* over the last")
    assert of.search(bare)[0] == of.search(capsys.readouterr().out)[0]


def test_adapters_are_refused(make_job, world, tmp_path):
    for step in (10, 20):
        folder = tmp_path / "lora" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        tensors = {f"m.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}
        torch.save(tensors, folder / "adapter_model.bin")
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
        (folder / "trainer_state.json").write_text("{}")
    with pytest.raises(ValueError, match="a LoRA adapter, and a score needs a whole model"):
        main(make_job(run_dir=str(tmp_path / "lora")))


def test_a_checkpoint_that_a_merge_refuses_is_left_out_of_all(make_job, world, tmp_path, capsys):
    shutil.copytree(world / "run", tmp_path / "run")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "checkpoint-20")
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    model.save_pretrained(tmp_path / "run" / "checkpoint-20")
    main(make_job(run_dir=str(tmp_path / "run")))
    printed = capsys.readouterr().out
    assert "checkpoint-20: tensor model.norm.weight holds NaN or infinity" in printed
    assert re.search(r"left out, \d+ candidates: ", printed) and "the best merge saves" in printed


def test_checkpoints_that_do_not_go_together_leave_nothing(make_job, world, tmp_path):
    shutil.copytree(world / "run", tmp_path / "run")
    odd = tmp_path / "run" / "checkpoint-20"
    model = AutoModelForCausalLM.from_pretrained(odd)
    (odd / "model.safetensors").unlink()
    dcp.save({"model": model.state_dict()}, checkpoint_id=odd, no_dist=True)
    with pytest.raises(ValueError, match=r"checkpoint-\d0: tensor .* is missing, .*one is .*dcp"):
        main(make_job(run_dir=str(tmp_path / "run")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "given,message",
    [
        ({"end": 45}, "end=45: no checkpoint stands there; the nearest: end=40, end=50"),
        ({"assets": "/nowhere"}, "assets=/nowhere: no such folder"),
        ({"suspicious": "no"}, "suspicious=no: choose"),
        ({"state": "both"}, "state=both: choose model or ema"),
    ],
)
def test_bad_options_end_in_one_line(given, message, make_job):
    with pytest.raises(ValueError, match=message):
        main(make_job(**given))
