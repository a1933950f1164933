"""`python -m pma.choose`: its candidates, the two halves of a text, and a search that is killed and goes on."""

from __future__ import annotations

import json
import random
import re

import pytest
import torch
from omegaconf import OmegaConf
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config

from pma.choose import search as search_module
from pma.choose.__main__ import ChooseJob, main
from pma.choose.candidates import candidates
from pma.choose.halves import Halves

WORDS = "zero one two three four five six seven eight nine ten plus minus is the sum of and then".split()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Five checkpoints of the Hugging Face Trainer: one random model and noise around it; and held-out text."""
    root = tmp_path_factory.mktemp("choose")
    rng = random.Random(0)
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([" ".join(WORDS)] * 9, vocab_size=300, special_tokens=["<|end|>"], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<|end|>")
    sizes = dict(vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    sizes |= dict(num_key_value_heads=1, head_dim=8, max_position_embeddings=64, tie_word_embeddings=True)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(Qwen3Config(**sizes))
    middle = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for step in (10, 20, 30, 40, 50):
        model.load_state_dict({name: t + 0.3 * torch.randn_like(t) for name, t in middle.items()})
        folder = root / "run" / f"checkpoint-{step}"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "trainer_state.json").write_text("{}")
    texts = [" ".join(rng.choice(WORDS) for _ in range(rng.randint(5, 30))) for _ in range(24)]
    (root / "held.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return root


def job(run, **values):
    paths = {"run_dir": str(run / "run"), "text": str(run / "held.jsonl")}
    return OmegaConf.structured(
        ChooseJob(**{**paths, "device": "cpu", "threads": 1, "methods": ["sma", "wma"], **values})
    )


def test_candidates_are_all_windows_that_fit_and_the_newest_alone():
    found = candidates([10, 20, 30, 40, 50], ["sma", "wma"], longest=40, singles=3)
    assert [c.window for c in found if c.method == "single"] == [(50,), (40,), (30,)]
    windows = {(c.method, c.n, c.every): c.window for c in found}
    assert windows["sma", 3, 2] == (10, 30, 50) and windows["sma", 2, 4] == (10, 50)
    assert windows["wma", 5, 1] == (10, 20, 30, 40, 50)
    assert ("wma", 2, 1) not in windows and ("sma", 3, 3) not in windows and len(found) == len(set(found)) == 3 + 8 + 4


@pytest.mark.parametrize(
    "positions,methods,message",
    [([10], ["sma"], "nothing to merge"), ([10, 20], ["ema"], "ema is none of"), ([10, 20], [], "at least one method")],
)
def test_impossible_searches_are_refused(positions, methods, message):
    with pytest.raises(ValueError, match=message):
        candidates(positions, methods, 40, 10)


def test_a_gain_is_of_the_half_that_did_not_choose():
    halves = Halves([100, 200] * 6)
    last, merge = [50.0, 300.0] * 6, [500.0, 280.0] * 6  # far worse where it is not reported
    assert halves.choosing(last) == 0.5 and halves.reporting(last) == 1.5
    gain, half = halves.gain(merge, last)
    assert gain == pytest.approx(0.1) and half == pytest.approx(0)
    with pytest.raises(ValueError, match="3 documents; give at least 10"):
        Halves([1, 2, 3])


def test_a_search_that_was_killed_goes_on_and_says_what_to_do(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(search_module, "_AT_ONCE", 4)
    output = str(tmp_path / "out")
    main(job(run, output=output, budget=0.0))
    assert "13 candidates are open" in (printed := capsys.readouterr().out) and "no merge is scored yet" in printed
    main(job(run, output=output))
    printed = capsys.readouterr().out
    assert "5 checkpoints up to 50, 17 candidates (4 scored before), 24 documents" in printed
    gain, half = re.search(r"the best merge saves (\S+) ± (\S+) bits per byte over the last", printed).groups()
    assert float(gain) > float(half) > 0  # noise around one model: its middle is better
    assert "lie like a cloud" in printed
    assert re.search(rf"next: python -m pma.merge run_dir={run}/run last=\d .*end=50 method=\w+ output=merged", printed)
    path = tmp_path / "out" / "candidates.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 17
    path.write_text("".join(lines[:9]) + lines[9][:40])  # as a kill leaves it
    monkeypatch.setattr(search_module.Judge, "bits", _counted(search_module.Judge.bits, seen := []))
    main(job(run, output=output))
    again = capsys.readouterr().out
    assert "(9 scored before)" in again and len(seen) == 8
    assert sorted(path.read_text().splitlines(keepends=True)) == sorted(lines)
    assert again.splitlines()[-6:] == printed.splitlines()[-6:]


def _counted(bits, seen):
    def counted(self, some):
        seen.extend(some)
        return bits(self, some)

    return counted


def test_a_run_without_tokenizer_names_assets(run, tmp_path):
    for folder in (run / "run").glob("checkpoint-5*"):
        copy = tmp_path / "run" / folder.name
        copy.mkdir(parents=True)
        for name in ("config.json", "model.safetensors", "trainer_state.json"):
            (copy / name).write_bytes((folder / name).read_bytes())
            (tmp_path / "run" / "checkpoint-60").mkdir(exist_ok=True)
            (tmp_path / "run" / "checkpoint-60" / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ValueError, match="no tokenizer there; assets=FOLDER"):
        main(job(run, run_dir=str(tmp_path / "run"), output=str(tmp_path / "out")))
