"""A sample of the campaigns ends without a bad outcome, and the frame knows each kind of bad outcome."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import campaign
import numpy as np
import pytest
import stress
from campaign import Campaign, Outcome, command, names, refusal
from merging import judge
from safetensors.numpy import save_file

HERE = Path(__file__).parent


def test_a_sample_of_every_campaign_has_no_bad_outcome(tmp_path):
    script = [sys.executable, str(HERE / "stress.py"), "--sample", "--jobs=1", f"--out={tmp_path}", "--seed=1"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    rows = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert [row for row in rows if row["verdict"] not in campaign.GOOD] == []
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"| all | {len(rows)} |" in done.stdout and len(rows) > 40


ENDS = {
    "right": ("print('merged')", None),
    "one line": ("sys.exit('error: a.bin: damaged; fetch it again')", "one line"),
    "no name": ("sys.exit('error: damaged')", "traceback"),
    "two lines": ("sys.exit('error: a.bin: damaged\\nerror: a.bin: twice')", "traceback"),
    "nothing said": ("sys.exit(3)", "traceback"),
    "raises": ("raise KeyError('a.bin')", "traceback"),
    "leaves a file over": ("open('over', 'w'); sys.exit('error: a.bin: damaged')", "left over"),
    "runs a pickle": ("open('EXECUTED', 'w'); sys.exit('error: a.bin: damaged')", "executed"),
    "hangs": ("time.sleep(60)", "hang"),
    "dies": ("os.kill(os.getpid(), signal.SIGSEGV)", "traceback"),
}


@pytest.mark.parametrize("code,verdict", ENDS.values(), ids=ENDS)
def test_the_frame_knows_how_a_command_ended(tmp_path, monkeypatch, code, verdict):
    monkeypatch.setattr(campaign, "WARM", ())  # these need no torch
    (tmp_path / "script.py").write_text(f"import os, signal, sys, time\n{code}\n")
    before = names(tmp_path)
    ended = command(str(tmp_path / "script.py"), folder=tmp_path, seconds=60 if verdict != "hang" else 1)
    outcome = refusal(ended, tmp_path, before, subject="a.bin")
    assert (outcome and outcome.verdict) == verdict, outcome


@pytest.mark.parametrize("off,verdict", [(0.0, "right"), (1e-3, "wrong"), (np.nan, "wrong"), (np.inf, "wrong")])
def test_a_merge_that_is_off_is_wrong(tmp_path, off, verdict):
    (tmp_path / "merged").mkdir()
    save_file({"w": np.ones(3, np.float32) + np.float32(off)}, tmp_path / "merged" / "model.safetensors")
    (tmp_path / "merged" / "manifest.json").write_text("{}")
    ended = campaign.Ended(0, "", "", 0.1)
    expected = {"w": np.ones(3)}
    assert judge(tmp_path, ended, set(), "a.bin", "flip", expected).verdict == verdict
    assert judge(tmp_path, ended, set(), "a.bin", "flip", None).verdict == "wrong"
    refused = campaign.Ended(1, "", "error: a.bin: damaged", 0.1)
    assert judge(tmp_path, refused, names(tmp_path), "a.bin", "", expected).verdict == "wrong"  # a control


def test_trials_are_the_same_again_and_done_once(tmp_path, monkeypatch):
    drawn = []

    def trial(random, folder):
        drawn.append(random.random())
        (folder / "file").touch()
        if len(drawn) == 2:
            raise KeyError("a mistake of the campaign")
        return Outcome("right")

    chosen = Campaign("a trial", trial, trials=3, sample=1)
    rows = stress.run({chosen: 3}, 1, tmp_path, jobs=1)
    assert [row["verdict"] for row in rows] == ["right", "traceback", "right"]
    assert [path.name for path in (tmp_path / "a-trial").iterdir()] == ["0001"]  # what is bad can be looked at
    assert len(stress.run({chosen: 3}, 1, tmp_path, jobs=1)) == 3 and len(drawn) == 3
    assert "| all | 3 | 2 | 0 | 1 |" in stress.table(rows)
    with open(tmp_path / "trials.jsonl", "a") as file:
        file.write('{"campaign": "a tr')  # as a kill leaves it
    stress.run({chosen: 4}, 1, tmp_path, jobs=1)
    first, *_, last = drawn
    assert len(drawn) == 4
    stress.run({chosen: 1}, 1, tmp_path / "again", jobs=1)
    assert drawn[-1] == first != last
