"""Refuse impossible values of a training job, before any work starts. Import them from pma.config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from omegaconf import DictConfig

DECAY_SHAPES = ("none", "cosine", "linear", "1-sqrt")
PARTS = ("train", "continued", "instruct")  # of a corpus


def validate(cfg: DictConfig) -> None:
    """Refuse impossible values of a training job.

    Raises:
        ValueError: naming the key, its value and the mend.
        omegaconf.MissingMandatoryValue: for a value that is not set at all.
    """
    _check_sizes(cfg)
    _check_steps(cfg)
    _check_logging(cfg)
    _check_schedule(cfg)
    _check_start(cfg)
    _check_model(cfg)
    _check_choices(cfg)
    _check_limits(cfg)


def _require(condition: bool, key: str, value: Any, mend: str) -> None:
    if not condition:
        raise ValueError(f"{key}={value}: {mend}")


def _choose(key: str, value: Any, choices: tuple[Any, ...]) -> None:
    names = ["null" if choice is None else str(choice) for choice in choices]
    _require(value in choices, key, value, f"choose {', '.join(names[:-1])} or {names[-1]}")


def _check_sizes(cfg: DictConfig) -> None:
    scale, train, model = cfg.scale, cfg.train, cfg.model
    for key, value in (
        ("scale.sequence_length", scale.sequence_length),
        ("scale.batch_tokens", scale.batch_tokens),
        ("scale.micro_batches", scale.micro_batches),
        ("train.total_tokens", train.total_tokens),
        ("train.snapshot_interval", train.snapshot_interval),
        ("train.checkpoint_interval", train.checkpoint_interval),
        ("train.checkpoints_kept", train.checkpoints_kept),
        ("train.log_interval", train.log_interval),
        ("schedule.peak_lr", cfg.schedule.peak_lr),
        ("model.hidden_size", model.hidden_size),
        ("model.layers", model.layers),
        ("model.head_dim", model.head_dim),
    ):
        _require(value > 0, key, value, "give a number above 0")


def _fork_points(cfg: DictConfig) -> Mapping[str, int]:
    return {f"train.fork_points[{i}]": tokens for i, tokens in enumerate(cfg.train.fork_points)}


def _check_steps(cfg: DictConfig) -> None:
    """Positions in tokens fall on optimizer steps."""
    scale, train = cfg.scale, cfg.train
    _require(
        scale.batch_tokens % (scale.sequence_length * scale.micro_batches) == 0,
        "scale.batch_tokens",
        scale.batch_tokens,
        f"give a multiple of sequence_length * micro_batches = {scale.sequence_length * scale.micro_batches}",
    )
    positions = {
        "train.total_tokens": train.total_tokens,
        "train.snapshot_interval": train.snapshot_interval,
        "train.checkpoint_interval": train.checkpoint_interval,
        "schedule.warmup_tokens": cfg.schedule.warmup_tokens,
        "schedule.decay_tokens": cfg.schedule.decay_tokens,
        "train.overwrite_interval": train.overwrite_interval or 0,
        "init.tokens": cfg.init.tokens or 0,
        "stop": cfg.stop or 0,
        **_fork_points(cfg),
    }
    for key, value in positions.items():
        _require(
            value >= 0 and value % scale.batch_tokens == 0,
            key,
            value,
            f"give a multiple of scale.batch_tokens = {scale.batch_tokens}, so that it falls on a step",
        )
    _require(
        train.snapshots_at is None or all(at % train.snapshot_interval == 0 for at in train.snapshots_at),
        "train.snapshots_at",
        train.snapshots_at,
        f"give multiples of train.snapshot_interval = {train.snapshot_interval}",
    )


def _check_logging(cfg: DictConfig) -> None:
    """Where a run can stop and go on, a row of metrics ends too."""
    logged = cfg.scale.batch_tokens * cfg.train.log_interval
    stops = {"train.checkpoint_interval": cfg.train.checkpoint_interval, "stop": cfg.stop or 0, **_fork_points(cfg)}
    for key, value in stops.items():
        _require(
            value % logged == 0,
            key,
            value,
            f"give a multiple of batch_tokens * train.log_interval = {logged}: a resumed run then logs the same means",
        )


def _check_schedule(cfg: DictConfig) -> None:
    schedule, total = cfg.schedule, cfg.train.total_tokens
    _require(
        schedule.warmup_tokens + schedule.decay_tokens <= total,
        "schedule.decay_tokens",
        schedule.decay_tokens,
        f"warmup ({schedule.warmup_tokens}) and decay must fit into train.total_tokens = {total}",
    )
    _choose("schedule.decay_shape", schedule.decay_shape, DECAY_SHAPES)
    _require(
        (schedule.decay_shape == "none") == (schedule.decay_tokens == 0),
        "schedule.decay_tokens",
        schedule.decay_tokens,
        f"decay_shape={schedule.decay_shape} needs {'0' if schedule.decay_shape == 'none' else 'more than 0'} tokens",
    )
    _require(
        0 <= schedule.end_lr <= schedule.peak_lr,
        "schedule.end_lr",
        schedule.end_lr,
        f"give a rate between 0 and schedule.peak_lr = {schedule.peak_lr}",
    )


def _check_start(cfg: DictConfig) -> None:
    """A run starts from at most one thing."""
    init, parent = cfg.init, cfg.init.parent
    starts = {"weights": init.weights, "checkpoint": init.checkpoint, "parent": parent.run}
    given = [key for key, start in starts.items() if start is not None]
    _require(len(given) <= 1, "init", ", ".join(given), "give one of them at most")
    if parent.run is not None:
        _require(parent.n >= 1, "init.parent.n", parent.n, "give at least 1 snapshot")
        spaced = parent.n == 1 or bool(parent.interval)
        _require(spaced, "init.parent.interval", parent.interval, "give the tokens between the snapshots: n is above 1")
        _choose("init.parent.optimizer", parent.optimizer, (None, "last", "mean"))
    rewarm = init.rewarm_tokens
    _require(
        rewarm is None or (rewarm > 0 and init.tokens is not None),
        "init.rewarm_tokens",
        rewarm,
        "give more than 0 tokens, and init.tokens, where they begin",
    )


def _check_model(cfg: DictConfig) -> None:
    model = cfg.model
    _choose("model.kind", model.kind, ("dense", "moe"))
    _require(
        model.heads > 0 and model.kv_heads > 0 and model.heads % model.kv_heads == 0,
        "model.kv_heads",
        model.kv_heads,
        f"give a divisor of model.heads = {model.heads}",
    )
    if model.kind == "dense":
        width = model.intermediate_size
        _require(bool(width), "model.intermediate_size", width, "give the feed-forward width of a dense model")
    else:
        for key in ("experts", "experts_per_token", "expert_intermediate_size"):
            _require(bool(model[key]), f"model.{key}", model[key], "give a number above 0 for an MoE model")
        _require(
            model.experts_per_token <= model.experts,
            "model.experts_per_token",
            model.experts_per_token,
            f"give at most model.experts = {model.experts}",
        )
    _require(
        model.vocab_size >= cfg.data.vocab_size,
        "model.vocab_size",
        model.vocab_size,
        f"the tokenizer of data={cfg.data.name} has {cfg.data.vocab_size} entries; give at least as many",
    )


def _check_choices(cfg: DictConfig) -> None:
    _choose("scale.snapshots", cfg.scale.snapshots, ("all", "needed"))
    _choose("scale.scoring", cfg.scale.scoring, ("memory", "vllm"))
    _choose("scale.suite", cfg.scale.suite, (None, "proxy", "instruct", "reward", "paper"))
    _choose("train.snapshot_dtype", cfg.train.snapshot_dtype, ("float32", "bfloat16"))
    _choose("train.part", cfg.train.part, PARTS)
    _choose("train.optimizer", cfg.train.optimizer, (None, "schedule_free"))
    _choose("tracking.mode", cfg.tracking.mode, ("auto", "offline", "online", "off"))
    _choose("device", cfg.device, ("auto", "cpu", "cuda"))
    for key, name in (("run_id", cfg.run_id), ("scale.name", cfg.scale.name), ("init.parent.run", cfg.init.parent.run)):
        plain = name is None or (PurePath(name).name == name and name not in ("", ".."))
        _require(plain, key, name, "give the name of a folder, without a path")


def _check_limits(cfg: DictConfig) -> None:
    clip, minutes = cfg.train.clip_norm, cfg.minutes
    _require(clip is None or clip > 0, "train.clip_norm", clip, "give a number above 0, or null for none")
    alphas = list(cfg.train.online_ema or [])
    fine = len(set(alphas)) == len(alphas) and all(0 < alpha < 1 for alpha in alphas)
    _require(fine, "train.online_ema", alphas, "give different numbers above 0 and below 1")
    interval, n = cfg.train.overwrite_interval, cfg.train.overwrite_n
    together = (interval is None) == (n is None) and (n is None or (n >= 1 and interval > 0))
    _require(together, "train.overwrite_n", n, "give at least 1, together with train.overwrite_interval in tokens")
    apart = n is None or cfg.train.optimizer is None  # that optimizer keeps the weights in two places
    _require(apart, "train.overwrite_n", n, "weights of schedule-free AdamW cannot be overwritten; leave one out")
    if (domain := cfg.train.reward_domain) is not None:
        domains = [generated.domain for generated in cfg.data.generated]
        mend = f"choose a domain of data.generated: {', '.join(domains)}"
        _require(domain in domains, "train.reward_domain", domain, mend)
        questions, answers = cfg.train.reward_questions, cfg.train.reward_answers
        _require((questions or 0) >= 1, "train.reward_questions", questions, "give at least 1")
        _require((answers or 0) >= 2, "train.reward_answers", answers, "give at least 2, to compare them")
    _require(minutes is None or minutes > 0, "minutes", minutes, "give more than 0, or null for no limit")
    _require(cfg.threads >= 0, "threads", cfg.threads, "give 0 (all cores of this job) or more")


def lacks_part(cfg: DictConfig) -> bool:
    """Whether the corpus of a training job will lack the part that it trains on."""
    instruct = any(cfg.data.instruct.bytes.values())
    return {"continued": not cfg.data.continued, "instruct": not instruct}.get(cfg.train.part, False)


def require_part(cfg: DictConfig) -> None:
    """Refuse a training job whose corpus will lack the part that it trains on.

    Raises:
        ValueError: naming the part, and what gives the corpus one.
    """
    if lacks_part(cfg):
        key = {"continued": "continued", "instruct": "instruct.bytes"}[cfg.train.part]
        raise ValueError(
            f"train.part={cfg.train.part} (run={cfg.run_name}): data={cfg.data.name} has no such part; give it one, "
            f"+data.{key}.DOMAIN=BYTES of a domain of its own, or leave out what needs this run"
        )
