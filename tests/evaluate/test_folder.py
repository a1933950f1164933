"""`python -m pma.evaluate`: one model folder, by transformers or by vLLM's stand-in."""

from __future__ import annotations

import json
import pickle
import shlex
import shutil
import sys

import pytest
from lm_eval.tasks import TaskManager

from pma import cli
from pma.evaluate.__main__ import main
from pma.evaluate.scorer import Scorer
from pma.merge.memory import averages


def test_the_command_prints_and_writes_the_scores(command, model_dir, corpus, tmp_path, capsys):
    (model_dir / "manifest.json").write_text(json.dumps({"corpus": str(corpus)}))
    assert command(f"model={model_dir}", f"output={tmp_path}/scores.json", "threads=1") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["task", "metric", "value", "stderr", "n"]
    written = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert [line.split()[0] for line in printed[1 : 1 + len(written)]] == [score["task"] for score in written]
    assert {path.name for path in tmp_path.iterdir()} == {"model", "scores", "scores.json"}  # no logs, no .hydra
    tasks = printed[-1].split("--include_path ")[1].split()[0]
    assert "pma_proxy" in TaskManager(include_path=tmp_path / tasks, include_defaults=False).all_groups


def test_weights_that_were_scored_in_memory_are_not_scored_again(
    command, model_dir, suite, corpus, tokenizer, make_model, tmp_path, monkeypatch
):
    """The cache knows weights by content: in memory, in a folder, in another file layout."""
    merged = averages([model_dir], [[1.0]])[0]
    before = Scorer(suite, make_model(), tokenizer, tmp_path / "scores").score(merged.content.rpartition(":")[2])
    make_model().save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    tokenizer.save_pretrained(tmp_path / "sharded")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    monkeypatch.setattr(Scorer, "_compute", None)  # a second computation fails
    for folder in (model_dir, tmp_path / "sharded"):
        assert command(f"model={folder}", f"corpus={corpus}", f"output={tmp_path}/scores.json") == 0
        written = json.loads((tmp_path / "scores.json").read_text())["scores"]
        assert written == [vars(score) for score in before]


def test_the_same_weights_under_another_config_are_scored_anew(command, model_dir, corpus, tmp_path):
    results = []
    for experts in (2, 1):
        config = json.loads((model_dir / "config.json").read_text())
        (model_dir / "config.json").write_text(json.dumps(config | {"num_experts_per_tok": experts}))
        assert command(f"model={model_dir}", f"corpus={corpus}", f"output={tmp_path}/scores.json") == 0
        results.append(json.loads((tmp_path / "scores.json").read_text())["scores"])
    assert results[0] != results[1]


def test_vllm_scores_a_folder_as_transformers_does(vllm, command, model_dir, corpus, tmp_path):
    call = [f"model={model_dir}", f"corpus={corpus}", "threads=1", f"output={tmp_path}/scores.json"]
    written = []
    for backend in ("hf", "vllm", "vllm"):
        assert command(*call, f"backend={backend}") == 0
        written.append(json.loads((tmp_path / "scores.json").read_text()))
    by_transformers, by_vllm, again = written
    assert by_vllm == again and by_vllm["version"] == by_transformers["version"] + "-vllm"
    assert len(vllm.started) == 1  # the second time all came from the cache, which it shares with no other backend
    assert len([path for path in (tmp_path / "scores").iterdir() if not path.name.endswith("-tasks")]) == 2
    assert vllm.started[0]["dtype"] == "bfloat16" and vllm.started[0]["tensor_parallel_size"] == 1
    for score, other in zip(by_vllm["scores"], by_transformers["scores"], strict=True):
        assert (score["task"], score["metric"], score["n"]) == (other["task"], other["metric"], other["n"])
        if score["metric"] == "bits_per_byte":  # weights were rounded, long texts are cut elsewhere
            assert score["value"] != other["value"] and score["value"] == pytest.approx(other["value"], rel=0.02)


def test_vllm_takes_its_options_and_generates(vllm, toy_paper, command, model_dir, tmp_path):
    options = ["backend=vllm", "tensor_parallel_size=2", "max_model_len=60"]
    assert command(f"model={model_dir}", "suite=paper", *options, f"output={tmp_path}/scores.json") == 0
    assert vllm.started[0]["tensor_parallel_size"] == 2 and vllm.started[0]["max_model_len"] == 60
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert [score["task"] for score in scores] == ["toy_group", "toy_write", "average"]
    assert [score["n"] for score in scores] == [16, 8, 24]


def test_without_vllm_the_message_says_how_to_get_it(command, model_dir, corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.delitem(sys.modules, "lm_eval.models.vllm_causallms", raising=False)
    call = [f"model={model_dir}", f"corpus={corpus}", "backend=vllm"]
    assert command(*call).startswith("error: vLLM is not installed in this environment. It pins a torch")
    assert command(*call[:2], "backend=tgi") == "error: backend=tgi: choose hf or vllm"
    assert command(*call[:2], "max_model_len=64").startswith("error: max_model_len=64: give a number above 0, together")
    assert not (tmp_path / "scores").exists()


def test_user_errors_end_in_one_line(command, model_dir, corpus, tmp_path):
    assert command(f"model={model_dir}") == (
        f"error: {model_dir}: its manifest names no corpus; give corpus=DIR, a folder with items/ and heldout/"
    )
    assert command(f"model={tmp_path}/none", f"corpus={corpus}").startswith(f"error: model={tmp_path}/none: no")
    assert command() == "error: Missing mandatory value: model"
    assert command("modl=x") == "error: modl: no such key; did you mean model?"


def test_a_sweep_can_send_the_task_to_another_process():
    task = pickle.loads(pickle.dumps(cli._UserErrors(main)))
    assert task.__module__ == main.__module__ and task._task is main


def test_text_of_your_own_is_scored_without_a_corpus(command, model_dir, tmp_path):
    lines = [{"text": "one plus two is three", "id": 1}, {"text": "four plus five is nine"}, {"text": ""}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "held.jsonl").write_text(text, encoding="utf-8-sig")  # as editors on Windows do
    assert command(f"model={model_dir}", "text=held.jsonl", "output=scores.json") == 0
    written = json.loads((tmp_path / "scores.json").read_text())
    (score,) = written["scores"]
    assert (written["suite"], score["task"], score["metric"], score["n"]) == ("text", "text", "bits_per_byte", 2)
    assert 1 < score["value"] < 20


@pytest.mark.parametrize(
    "content,message",
    [
        (None, "no such file"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (b"\n", "empty"),
        (b'{"text": "a"}\n{"body": "b"}\n', "line 2 holds no text"),
    ],
)
def test_a_text_file_that_cannot_be_scored_is_refused(command, model_dir, tmp_path, content, message):
    if content is not None:
        (tmp_path / "held.jsonl").write_bytes(content)
    error = command(f"model={model_dir}", "text=held.jsonl")
    assert error.startswith("error: text=held.jsonl") and message in error and "\n" not in error


def test_the_next_command_scores_the_newest_source_where_that_can_be_scored(command, model_dir, tmp_path, capsys):
    """A distributed checkpoint or a file cannot, and then no command is proposed that would fail."""
    (tmp_path / "held out.jsonl").write_text(json.dumps({"text": "one plus two is three"}))
    shutil.copytree(model_dir, tmp_path / "merged")
    for newest, proposed in ((model_dir, True), (tmp_path / "step-30", False), (tmp_path / "epoch=0.ckpt", False)):
        (tmp_path / "merged" / "manifest.json").write_text(json.dumps({"sources": [{"folder": str(newest)}]}))
        assert command("model=merged", "text=held out.jsonl", "limit=1") == 0
        following = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")]
        assert len(following) == proposed
        for line in following:
            assert line.split("  #")[0] == f"next: python -m pma.evaluate model={newest} 'text=held out.jsonl' limit=1"
            assert command(*shlex.split(line, comments=True)[4:]) == 0
