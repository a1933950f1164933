"""The model card of a merge: what it says, that it is the same wherever the merge is made, and scores in it."""

from __future__ import annotations

import json
import os
import shlex

import pytest
import torch
import yaml
from safetensors.torch import save_file

import pma
from pma.json_files import MANIFEST
from pma.merge.card import CARD, add_scores
from pma.snapshot import verify


@pytest.fixture
def folders(tmp_path, model_folder):
    """Three checkpoints of one run; the last two have cards of their own."""
    made = [model_folder(tmp_path / "run" / f"step-{i}00", {"w": torch.full((2,), float(i))}) for i in (1, 2, 3)]
    for path in (path for folder in made for path in folder.iterdir()):
        os.utime(path, (0, 0))  # written long ago, so surely complete
    for folder in made[1:]:
        (folder / CARD).write_text("---\nlicense: apache-2.0\nlanguage:\n- en\nbase_model: org/base\n---\n# Mine\n")
        os.utime(folder / CARD, (0, 0))
    return made


def front_matter(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_card_says_what_was_merged_and_makes_it_again(folders, tmp_path, monkeypatch):
    out = pma.merge(folders, tmp_path / "out", "wma", dtype="bfloat16")
    card = (out / CARD).read_text()
    assert front_matter(card) == {
        "license": "apache-2.0",
        "base_model": "org/base",
        "library_name": "transformers",
        "tags": ["merge", "checkpoint-averaging"],
    }
    content = json.loads((out / MANIFEST).read_text())["sources"][2]["content"].rpartition(":")[2]
    assert f"| step-300 | 0.5 | {content} |" in card and "0.833, 0.5" in card
    assert str(tmp_path) not in card
    command = next(line for line in card.splitlines() if line.startswith("python -m pma.merge"))
    assert "method=wma dtype=bfloat16 output=OUT" in command
    monkeypatch.chdir(tmp_path / "run")
    sources = next(word for word in shlex.split(command) if word.startswith("sources=["))
    again = pma.merge(sources[len("sources=[") : -1].split(","), tmp_path / "again", "wma", dtype="bfloat16")
    assert (again / CARD).read_text() == card


def test_a_window_of_a_run_is_said_by_its_checkpoints_and_other_weights_in_numbers(folders, tmp_path):
    card = (pma.merge(tmp_path / "run", tmp_path / "two", last=2) / CARD).read_text()
    assert "'sources=[step-200,step-300]' method=sma" in card
    card = (pma.merge(folders, tmp_path / "own", weights=[0.5, 0.0, 0.25]) / CARD).read_text()
    assert "'sources=[step-100,step-300]' 'weights=[0.5,0.25]'" in card and "license" in card
    card = (pma.merge(folders[:1], tmp_path / "one") / CARD).read_text()
    assert "# Merge of 1 checkpoint\n" in card and "factor" not in card and "license" not in card


def test_cards_that_disagree_give_no_licence(folders, tmp_path):
    (folders[1] / CARD).write_text("---\nlicense: mit\n---\n")
    assert "license" not in front_matter((pma.merge(folders, tmp_path / "out") / CARD).read_text())


def test_scores_and_your_own_words_leave_the_merge_as_it_was_published(folders, tmp_path):
    out = pma.merge(folders, tmp_path / "out")
    add_scores(out, "text", [("text", "bits_per_byte", 2.5, None)])
    add_scores(out, "proxy", [("average", "acc", 0.25, 0.01)])
    add_scores(out, "text", [("text", "bits_per_byte", 2.25, 0.5)])
    with open(out / CARD, "a") as file:
        file.write("\nMy words.\n")
    card = (out / CARD).read_text()
    assert "| text | text | bits_per_byte | 2.2500 | 0.5000 |" in card and "2.5000" not in card
    assert "| proxy | average | acc | 0.2500 | 0.0100 |" in card and card.count("## Scores") == 1
    assert verify(out)["content"]
    add_scores(folders[1], "text", [("text", "bits_per_byte", 2.5, None)])
    assert "bits_per_byte" not in (folders[1] / CARD).read_text()  # not our card


def test_a_card_of_an_adapter_names_its_base(tmp_path):
    folders = []
    for i in range(2):
        folder = tmp_path / f"checkpoint-{i}"
        folder.mkdir()
        config = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 2, "lora_alpha": 4}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        name = "base_model.model.q.lora_{}.weight"
        save_file(
            {name.format("A"): torch.ones(2, 3), name.format("B"): torch.ones(3, 2)},
            folder / "adapter_model.safetensors",
        )
        folders.append(folder)
    values = front_matter((pma.merge(folders, tmp_path / "out") / CARD).read_text())
    assert values["base_model"] == ["org/base"] and values["library_name"] == "peft"
