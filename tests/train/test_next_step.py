"""The last line of `python -m pma.train`: a command that works on the snapshots that there are."""

from __future__ import annotations

import re

import pytest

from pma.layout import run_window, snapshot_dir
from pma.train.__main__ import main, next_step


@pytest.mark.parametrize(
    "kept, expected",
    [
        ([], "larger stop"),
        ([5120], "pma.evaluate model=.*tokens-000000000005120"),
        ([512, 1024, 1536], "n=3 interval=512 end=1536"),
        (range(512, 10241, 256), "n=10 interval=512 end=10240"),
        ([2560, 5120, 7680], "n=3 interval=2560 end=7680"),
    ],
)
def test_the_next_step_fits_the_snapshots(lab, kept, expected):
    cfg = lab.config()
    folder = lab.folder(cfg.run_id)
    for tokens in kept:
        snapshot_dir(folder, tokens).mkdir(parents=True)
    line = next_step(cfg)
    words = dict(word.split("=", 1) for word in line.split() if "=" in word)
    assert re.search(expected, line)
    if "pma.merge" in line:
        run_window(folder, int(words["n"]), int(words["interval"]), int(words["end"]))


def test_a_run_that_has_not_come_to_its_first_snapshot_ends_with_a_next_step(lab, capsys):
    main(lab.config("stop=2560", "train.snapshot_interval=5120"))
    assert "next: the same command with a larger stop" in capsys.readouterr().out
