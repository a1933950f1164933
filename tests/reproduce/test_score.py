"""Scoring: each merge once, kept when a call ends early, in memory or through vLLM."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from omegaconf import DictConfig
from smoke_runs import unscored_data

from pma.records import Items, Record
from pma.reproduce import local, score, score_cache
from pma.reproduce.clock import Clock, OutOfTime
from pma.reproduce.local import LocalProcesses
from pma.reproduce.publish import records_of
from pma.reproduce.runs import required


def scored(job: DictConfig, clock: Clock | None = None) -> tuple[list[Record], list[Items]]:
    """The records of a job's experiment, scored by this process."""
    configs = required(job, [job.experiment])
    ((experiment, runs),) = LocalProcesses(job, configs, clock or Clock(None)).score([job.experiment])
    return records_of(job, experiment, configs, runs)


def test_a_score_is_computed_once_and_read_once(smoke_runs, two_merges, tmp_path, monkeypatch):
    job = two_merges(f"runs_dir={smoke_runs}", f"data_dir={unscored_data(tmp_path)}")
    reads: Counter[Path] = Counter()
    read = score_cache.read_scores
    monkeypatch.setattr(score_cache, "read_scores", lambda path: (reads.update([path]), read(path))[1])
    records, items = scored(job)
    assert len(reads) == 2 and set(reads.values()) == {1}
    assert {record.method for record in records} == {"last", "sma"} and len(items) > 20
    monkeypatch.setattr(score, "_scorer", None)  # nothing is left to score
    assert scored(job) == (records, items)
    assert set(reads.values()) == {2}


def test_scoring_goes_on_where_the_minutes_ended_it(smoke_runs, two_merges, tmp_path):
    job = two_merges(f"runs_dir={smoke_runs}", f"data_dir={unscored_data(tmp_path)}", "merges_per_job=1")
    with pytest.raises(OutOfTime):
        scored(job, Clock(0))
    merges = tmp_path / "data" / "scores" / "merges"
    kept = {path.name: path.read_bytes() for path in merges.glob("*.json")}
    assert len(kept) <= 1  # what was in work is let finish
    records, _ = scored(job)
    after = {path.name: path.read_bytes() for path in merges.glob("*.json")}
    assert len(after) == 2 and after.items() >= kept.items() and {r.method for r in records} == {"last", "sma"}


def test_processes_score_alike(smoke_runs, two_merges, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_WORTH_PROCESSES", 0)
    options = f"runs_dir={smoke_runs}", "merges_per_job=1"
    alone = scored(two_merges(*options, f"data_dir={unscored_data(tmp_path / 'one')}"))
    several = scored(two_merges(*options, "jobs=2", f"data_dir={unscored_data(tmp_path / 'two')}"))
    assert alone == several


def test_merges_inside_a_decay_may_hold_snapshots_far_from_the_others(two_merges):
    job = two_merges()
    cfg = next(iter(required(job, [job.experiment]).values()))
    assert score_cache.policy(cfg).suspicious == "refuse"
    cfg.schedule.decay_tokens = 512
    assert score_cache.policy(cfg).suspicious == "warn"


def test_vllm_scores_merges_written_for_it(smoke_runs, two_merges, tmp_path, vllm):
    options = [f"runs_dir={smoke_runs}", f"data_dir={unscored_data(tmp_path)}"]
    in_memory, _ = scored(two_merges(*options))
    by_vllm, _ = scored(two_merges(*options, "scale.scoring=vllm"))
    snapshot, merge = (Path(engine["model"]) for engine in vllm.started)
    assert snapshot.is_dir() and merge.parent == tmp_path / "data" / "merged"
    assert not [path for path in (tmp_path / "data" / "merged").iterdir() if path.is_dir()]
    differ = 0
    for ours, exact in zip(by_vllm, in_memory, strict=True):
        assert (ours.tokens, ours.method, ours.task, ours.metric) == (
            exact.tokens, exact.method, exact.task, exact.metric,
        )  # fmt: skip
        if ours.metric == "bits_per_byte":
            assert ours.value == pytest.approx(exact.value, rel=0.02)
            differ += ours.value != exact.value
    assert differ > 10  # bf16 was scored, and not read from the cache of the others
    again, _ = scored(two_merges(*options, "scale.scoring=vllm"))
    assert again == by_vllm and len(vllm.started) == 2
