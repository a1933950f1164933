"""What commands print: runs in plain words, times to wait for, the next command once."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir

from pma.config import CONF_DIR, TrainingJob, register
from pma.words import count, disk_size, duration, print_next, run_in_words

register(TrainingJob)


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ("moe_main", "from scratch"),
        ("annealed_moe_main", "annealed fork of moe_main"),
        ("continued_pma", "continued on other text from a merge of moe_main"),
        ("sft_baseline", "fine-tuned from the last snapshot of moe_main, 0.05 × rate"),
        ("spike_pma", "resumed from a merge of spike, 50 × rate"),
        ("lr_half", "from scratch, 0.5 × rate"),
    ],
)
def test_a_run_is_told_in_words(run, words):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        assert run_in_words(compose("config", [f"run={run}", "scale=smoke"])) == words


def test_numbers_are_short():
    assert [count(1, "run"), count(1200, "run")] == ["1 run", "1,200 runs"]
    assert [duration(8), duration(130), duration(9000)] == ["8 s", "2 min", "2.5 h"]
    assert [disk_size(33.4), disk_size(1234)] == ["33 MB", "1.2 GB"]


def test_the_next_command_is_said_once(monkeypatch, capsys):
    monkeypatch.delenv("PMA_NEXT", raising=False)
    print_next("make figures")
    monkeypatch.setenv("PMA_NEXT", "no")  # a make target says it at its end
    print_next("make report")
    assert capsys.readouterr().out == "next: make figures\n"
