"""Pre-training: one run, from its config to its snapshots.

    python -m pma.train run=moe_main seed=0
    python -m pma.train -m run=moe_main seed=0,1
    torchrun --nproc_per_node=2 -m pma.train run=moe_main scale=smoke      (pma.distributed)

Killed at any moment and started again with the same command, a run ends with the same bits as an unbroken one: the
learning rate is a pure function of tokens, the batch one of (seed, step), and the rest stands in the checkpoint.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from tqdm import tqdm
from transformers import AutoTokenizer

from pma import __version__
from pma.config import ROOT, TrainConfig, require_part, validate
from pma.corpus import TokenDataset, batches, mixing_weights, prepare
from pma.device import choose_device, cpu_threads
from pma.files import MANIFEST, read_manifest, write_json, write_text
from pma.layout import checkpoint_dir, checkpoints, run_window, snapshot_dir, snapshots
from pma.merge import average
from pma.merge.weights import sma
from pma.model.build import Bf16Loss, build, copy_parameters, load_pretrained, load_weights, loss, parameter_counts
from pma.run import identity, is_fork, parent_folder, run_folder, target_tokens, trained_tokens
from pma.snapshot import complete_snapshot, copy_weights, save_snapshot
from pma.tracking import Tracker, snapshot_artifact
from pma.train.checkpoint import copy_state, load_checkpoint, load_optimizer, save_checkpoint
from pma.train.distributed import ShardedMicroBatches, World, joined, processes
from pma.train.parallel import Loss, MicroBatches
from pma.train.schedule import learning_rate

REQUEUE = 75  # exit status after SIGTERM or SIGUSR1 (sysexits.h: try again): the same command goes on
Complete = Callable[[int, Path], None]  # (tokens, folder): puts into a snapshot what goes with its weights


class DivergedError(ValueError):
    """The loss or the gradient norm is not finite."""


def training_loss(cfg: DictConfig, device: torch.device) -> Loss:
    """The loss in the precision of the device: fp32 on a CPU, bf16 with fp32 parameters on CUDA; compiled where that
    pays."""

    compiled = cfg.compile if cfg.compile is not None else device.type == "cuda"
    if compiled and device.type == "cpu" and shutil.which("g++") is None:
        print("no C++ compiler found: training without torch.compile")
        compiled = False
    one = loss if device.type == "cpu" else Bf16Loss.rounded
    # One graph: a break in it would make the host wait for the GPU in every step.
    step = torch.compile(one, fullgraph=True, dynamic=False) if compiled else one

    @cache
    def prepared(model: nn.Module) -> nn.Module:
        found = model if device.type == "cpu" else Bf16Loss(model)
        if compiled:  # transformers puts hooks in at a model's first call, which a graph cannot hold
            nothing = torch.zeros(1, 1, dtype=torch.int64, device=device)
            with torch.no_grad():
                one(found, nothing, nothing)
        return found

    return lambda model, inputs, targets: step(prepared(model), inputs, targets)


def make_optimizer(t: TrainConfig, model: nn.Module) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101); no decay on the gains of norms, as is usual since GPT-2."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    gains = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": t.weight_decay}, {"params": gains, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(t.beta1, t.beta2), eps=t.eps, fused=True)


def versions() -> dict[str, str]:
    """What a record needs to be traced: versions, platform and code revision."""
    git = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "pma": __version__,
        "revision": git.stdout.strip() or "unknown",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
    }


def _initialise(cfg: DictConfig, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Put the start of the run into model and optimizer; the position in tokens."""
    tokens = 0
    if cfg.init.checkpoint is not None:
        tokens = load_checkpoint(Path(cfg.init.checkpoint), model, optimizer)
    if cfg.init.weights is not None:
        source = load_pretrained(Path(cfg.init.weights))
        theirs = {name: tuple(p.shape) for name, p in source.named_parameters()}
        if theirs != {name: tuple(p.shape) for name, p in model.named_parameters()}:
            raise ValueError(f"init.weights={cfg.init.weights}: another architecture than model={cfg.model.name}")
        copy_parameters(model, source.state_dict())
    if cfg.init.parent.run is not None:
        tokens = _initialise_from_parent(cfg, model, optimizer)
    return tokens if cfg.init.tokens is None else cfg.init.tokens


def _continues(cfg: DictConfig) -> dict[str, Any]:
    # For `trajectory`: this run goes on where another one was left.
    if not is_fork(cfg):
        return {}
    return {"continues": {"run": parent_folder(cfg).name, "tokens": cfg.init.parent.tokens}}


def _initialise_from_parent(cfg: DictConfig, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    parent, folder = cfg.init.parent, parent_folder(cfg)
    window = [parent.tokens - i * (parent.interval or 0) for i in range(parent.n)]
    wanted = {None: [], "last": window[:1], "mean": window}[parent.optimizer]
    found = checkpoints(folder)
    for tokens in wanted:
        if tokens not in found:
            raise ValueError(
                f"{folder}: no checkpoint at {tokens:,} tokens to take the optimizer state from; name it in "
                f"train.fork_points of run={parent.run} and train that run again (remove its folder)"
            )
    if is_fork(cfg):
        return load_checkpoint(found[parent.tokens], model, optimizer)
    load_weights(model, average(run_window(folder, parent.n, parent.interval or 1, parent.tokens), sma(parent.n)))
    if wanted:
        load_optimizer([found[tokens] for tokens in wanted], model, optimizer)
    return 0


def _drop_old_checkpoints(cfg: DictConfig, folder: Path) -> None:
    passing = [path for tokens, path in checkpoints(folder).items() if tokens not in cfg.train.fork_points]
    for path in passing[: -cfg.train.checkpoints_kept]:
        shutil.rmtree(path)


def _resume(cfg: DictConfig, folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Position to go on from: the newest checkpoint, or the run's start."""
    found = checkpoints(folder)
    if not found:
        return _initialise(cfg, model, optimizer)
    tokens = load_checkpoint(found[max(found)], model, optimizer)
    print(f"{cfg.run_id}: resumed at {tokens:,} tokens")
    return tokens


def _check_finite(cfg: DictConfig, folder: Path, first_step: int, losses: list[Tensor], norms: list[Tensor]) -> None:
    bad = (~(torch.stack(losses).isfinite() & torch.stack(norms).isfinite())).nonzero()
    if len(bad):
        step = first_step + int(bad[0])
        raise DivergedError(
            f"{cfg.run_id}: loss or gradient norm is not finite at step {step} "
            f"({step * cfg.scale.batch_tokens:,} tokens). The snapshots before it are good and stay in "
            f"{folder / 'snapshots'}. Lower schedule.peak_lr or train.clip_norm, or start a run from a merge of "
            f"snapshots before the step with init.weights=MERGED init.tokens=TOKENS (the paper's section 4.4)"
        )


def train(cfg: DictConfig) -> Path:
    """Train one run to its end, or to `stop`, from its newest checkpoint if it has one; returns its folder.

    Raises:
        ValueError: for impossible values, a folder that holds another run or is in use, or a loss that is not finite.
    """
    validate(cfg)
    require_part(cfg)
    folder = run_folder(cfg)
    if (parent := parent_folder(cfg)) is not None and not (parent / MANIFEST).exists():
        raise ValueError(f"init.parent: {parent} is not there; train run={cfg.init.parent.run} first")
    if trained_tokens(cfg) >= target_tokens(cfg):
        print(f"{cfg.run_id}: already trained, nothing to do ({folder})")
        return folder
    device = torch.device(choose_device(cfg.device))
    if processes() > 1:
        if cfg.scale.micro_batches % processes():
            raise ValueError(
                f"scale.micro_batches={cfg.scale.micro_batches}: {processes()} processes share them, give a multiple; "
                f"it is part of a run's identity, for an MoE balances its experts in each micro-batch"
            )
        with joined(device) as world:
            with _alone(folder) if world.first else nullcontext():
                _train(cfg, folder, world.device, world)
        return folder
    with _alone(folder):
        _train(cfg, folder, device)
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise ValueError(f"{folder}: another process is training this run; wait for it or give run_id=NAME") from None


class _Saver:
    """Snapshots and checkpoints of a run in one process, written by a thread that does not hold up training."""

    def __init__(self, cfg: DictConfig, folder: Path, model: Any, optimizer: Any, complete: Complete) -> None:
        self._cfg, self._folder, self._model, self._optimizer = cfg, folder, model, optimizer
        self._complete = complete
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def _write(self, task: Callable[..., None], *arguments: Any) -> None:
        self.finish()  # one at a time waits for the disk
        self._writing = self._thread.submit(task, *arguments)

    def snapshot(self, tokens: int) -> None:
        """Save the weights as they stand, after `tokens`."""
        weights = copy_weights(self._model, self._cfg.train.snapshot_dtype)
        folder = snapshot_dir(self._folder, tokens)
        self._write(save_snapshot, folder, self._model, weights, partial(self._complete, tokens))

    def checkpoint(self, tokens: int) -> None:
        """Save the whole state; after the snapshots up to here, which a run resumed from it will not make again."""
        self._write(self._checkpoint, copy_state(self._model, self._optimizer), tokens)

    def _checkpoint(self, state: Callable[[], Any], tokens: int) -> None:
        save_checkpoint(checkpoint_dir(self._folder, tokens), state, tokens)
        _drop_old_checkpoints(self._cfg, self._folder)

    def finish(self) -> None:
        """Wait for what is being written; an error of it shows here."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


class _ShardedSaver:
    """The same for a run on several processes, each of which writes a part."""

    def __init__(
        self, cfg: DictConfig, folder: Path, model: Any, optimizer: Any, complete: Complete, world: World
    ) -> None:
        self._cfg, self._folder, self._model, self._optimizer = cfg, folder, model, optimizer
        self._complete, self._world = complete, world

    def snapshot(self, tokens: int) -> None:
        """Save the weights, after `tokens`."""
        dtype = getattr(torch, self._cfg.train.snapshot_dtype)
        folder = snapshot_dir(self._folder, tokens)
        self._world.save_snapshot(folder, self._model, dtype, partial(self._complete, tokens))

    def checkpoint(self, tokens: int) -> None:
        """Save the whole state, in the background."""
        drop = partial(_drop_old_checkpoints, self._cfg, self._folder)
        self._world.save_checkpoint(
            checkpoint_dir(self._folder, tokens), self._model, self._optimizer, tokens, then=drop
        )

    def finish(self) -> None:
        """Wait for what is being written."""
        self._world.finish_checkpoint()


class _Signals:
    """SIGTERM and SIGUSR1, by which schedulers say that a job must end; caught for the time of a block."""

    def __init__(self) -> None:
        self.came = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():  # no other may catch them
            self._before = {one: signal.signal(one, self._take) for one in (signal.SIGTERM, signal.SIGUSR1)}
        return self

    def __exit__(self, *error: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _take(self, number: int, frame: Any) -> None:
        self.came = True


def _train(cfg: DictConfig, folder: Path, device: torch.device, world: World | None = None) -> None:
    t, batch_tokens = cfg.train, cfg.scale.batch_tokens
    first = world is None or world.first  # the process that writes and speaks

    def build_corpus() -> Path:
        return prepare(cfg.data, Path(cfg.data_dir))

    corpus = build_corpus() if world is None else world.after_first(build_corpus)
    tokenizer = AutoTokenizer.from_pretrained(corpus / "tokenizer")
    sequences = batch_tokens // cfg.scale.sequence_length
    data = TokenDataset(corpus, cfg.seed, cfg.scale.sequence_length, sequences, t.part, mixing_weights(cfg.data))
    started = time.monotonic()

    torch.manual_seed(cfg.seed)
    model = build(cfg.model, cfg.scale.sequence_length).to(device)
    if cfg.parallel.recompute:
        model.train().gradient_checkpointing_enable({"use_reentrant": False})
    threads = cpu_threads(cfg.threads)
    micro_batches: MicroBatches | ShardedMicroBatches
    if world is None:
        micro_batches = MicroBatches(model, training_loss(cfg, device), cfg.scale.micro_batches, threads)
        rows = slice(None)
    else:
        torch.set_num_threads(max(1, threads // world.size) if device.type == "cpu" else threads)
        micro_batches = ShardedMicroBatches(world, world.shard(model, cfg.parallel), cfg.scale.micro_batches)
        rows = world.rows(sequences)
    parameters = list(model.parameters())
    optimizer = make_optimizer(t, model)
    start, end = _resume(cfg, folder, model, optimizer), target_tokens(cfg)

    counts = parameter_counts(cfg.model)
    manifest = {
        "run_id": cfg.run_id,
        "config_hash": identity(cfg),
        "seed": cfg.seed,
        "scale": cfg.scale.name,
        "corpus": corpus.as_posix(),
        "parameters": {"total": counts.total, "active": counts.active},
        **_continues(cfg),
        "optimizer_state": cfg.init.parent.optimizer or ("new" if cfg.init.checkpoint is None else "last"),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {threads} threads",
        **({} if world is None else {"processes": world.size}),
        "versions": versions(),
    }
    spent = read_manifest(folder).get("seconds", 0.0) if (folder / MANIFEST).exists() else 0.0
    if first:
        write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
        write_json(folder / MANIFEST, {**manifest, "tokens": start, "seconds": spent})

    wandb_run: dict[str, Any] = {
        "id": f"{cfg.run_id}-{manifest['config_hash']}",
        "name": cfg.run_id,
        "group": cfg.group or os.environ.get("WANDB_RUN_GROUP") or cfg.run_name,
        "job_type": "train",
        "config": {**OmegaConf.to_container(cfg, resolve=True), **manifest},
    }

    def complete(tokens: int, aside: Path) -> None:
        complete_snapshot(aside, tokenizer, {**manifest, "tokens": tokens, "dtype": t.snapshot_dtype})

    saved = (cfg, folder, model, optimizer, complete)
    saver = _Saver(*saved) if world is None else _ShardedSaver(*saved, world)
    tokens, best = start, float("inf")
    losses: list[Tensor] = []
    norms: list[Tensor] = []
    plain = not sys.stderr.isatty() and first
    hidden = plain or not first
    began = logged = time.perf_counter()
    with (
        _Signals() as signals,
        Tracker(folder, start, cfg.tracking, **wandb_run) if first else nullcontext() as tracker,
        tqdm(total=end, initial=start, unit="tok", unit_scale=True, desc=cfg.run_id, disable=hidden) as progress,
    ):
        if cfg.init.parent.run is not None and not snapshots(folder):  # what a run starts from can be scored too
            saver.snapshot(start)
        steps = range(start // batch_tokens, end // batch_tokens)
        for step, (inputs, targets) in zip(steps, batches(data, steps, device, rows), strict=True):
            rate = learning_rate(cfg.schedule, t.total_tokens, step * batch_tokens)
            if cfg.init.rewarm_tokens is not None:
                rate *= min(1.0, (step * batch_tokens - cfg.init.tokens) / cfg.init.rewarm_tokens)
            for group in optimizer.param_groups:
                group["lr"] = rate
            losses.append(micro_batches.backward(inputs, targets))
            norm = nn.utils.clip_grad_norm_(parameters, t.clip_norm or float("inf"))
            norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

            tokens = (step + 1) * batch_tokens
            log = (step + 1) % t.log_interval == 0 or tokens == end
            over = cfg.minutes is not None and time.monotonic() - started > 60 * cfg.minutes
            over = log and (world.any(over or signals.came) if world else over or signals.came)
            last = tokens == end or over
            snapshot = tokens == t.total_tokens or (
                tokens % t.snapshot_interval == 0 and (t.snapshots_at is None or tokens in t.snapshots_at)
            )
            checkpoint = tokens % t.checkpoint_interval == 0 or tokens in t.fork_points or last
            if log or snapshot or checkpoint:
                # Looked at here and not each step: reading a number off a GPU makes it wait.
                _check_finite(cfg, folder, step + 1 - len(losses), losses, norms)
            if log:
                now = time.perf_counter()
                speed = len(losses) * batch_tokens / (now - logged)
                loss_mean = torch.stack(losses).mean().item()
                if tracker is not None:
                    gradient_norm = norms[-1].item()
                    tracker.log(
                        tokens, loss=loss_mean, lr=rate, gradient_norm=gradient_norm, tokens_per_second=round(speed)
                    )
                best = min(best, loss_mean)
                progress.set_postfix(loss=f"{loss_mean:.3f}", best=f"{best:.3f}", refresh=False)
                if plain and (step + 1) * 5 // (end // batch_tokens) != (
                    (step + 1 - len(losses)) * 5 // (end // batch_tokens)
                ):
                    left = (end - tokens) / (tokens - start) * (now - began)
                    print(
                        f"{cfg.run_id}: {tokens:,} of {end:,} tokens, loss {loss_mean:.3f} (best {best:.3f}), "
                        f"{speed:,.0f} tokens/s, {left:.0f} s left",
                        flush=True,
                    )
                logged = now
                losses.clear()
                norms.clear()
            if snapshot:
                saver.snapshot(tokens)
            if checkpoint:
                saver.checkpoint(tokens)
            progress.update(batch_tokens)
            if over:
                break
        saver.finish()
        if tracker is not None:
            tracker.made([snapshot_artifact(folder, at) for at in snapshots(folder) if at > start])
    seconds = time.perf_counter() - began
    if first:
        write_json(folder / MANIFEST, {**manifest, "tokens": tokens, "seconds": round(spent + seconds, 1)})
        print(f"{cfg.run_id}: trained to {tokens:,} of {end:,} tokens, {seconds:.0f} s, in {folder}", flush=True)
    if signals.came:
        raise SystemExit(REQUEUE)
