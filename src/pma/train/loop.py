"""Pre-training: one run, from its config to its snapshots.

    python -m pma.train run=moe_main seed=0
    python -m pma.train -m run=moe_main seed=0,1
    torchrun --nproc_per_node=2 -m pma.train run=moe_main scale=smoke

Killed at any moment and started again with the same command, a run ends with the same bits as an unbroken one: the
learning rate is a pure function of tokens, the batch one of (seed, step), and the rest stands in the checkpoint.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from omegaconf import DictConfig

from pma.config import TrainConfig
from pma.corpus import TokenDataset, batches, mixing_weights, order_seed, prepare, require_intact
from pma.files import sweep
from pma.layout import average_dir, checkpoint_dir, snapshot_dir, snapshots
from pma.model.build import build
from pma.run import run_folder, target_tokens, trained_tokens
from pma.train.averages import OnlineAverages, Overwriting
from pma.train.checkpoint import drop_old_checkpoints
from pma.train.manifest import RunManifest
from pma.train.many_processes import ManyProcesses
from pma.train.objective import clip_gradients, make_optimizer
from pma.train.one_process import OneProcess
from pma.train.progress import Progress
from pma.train.reinforce import Rollouts
from pma.train.schedule import learning_rate
from pma.train.start import check, resume
from pma.train.state import TrainingState
from pma.train.stop import REQUEUE, StopRequest
from pma.train.world import World, is_first, process_count
from pma.words import duration, run_in_words, size_label


def train(cfg: DictConfig, quiet: bool = False) -> Path:
    """Train one run to its end, or to `stop`, from its newest checkpoint if it has one; return its folder.

    A quiet run prints nothing and shows no bar.

    Raises:
        ValueError: for impossible values, a folder that holds another run or is in use, or a loss that is not finite.
        SystemExit: with status REQUEUE after SIGTERM or SIGUSR1; the same command goes on.
    """
    check(cfg)
    if cfg.train.reward_domain is not None and process_count() > 1:
        raise ValueError("train.reward_domain: answers are sampled in one process; start this run without torchrun")
    folder = run_folder(cfg)
    if trained_tokens(cfg) >= target_tokens(cfg):
        if is_first() and not quiet:
            print(f"{cfg.run_id}: already trained, nothing to do ({folder})")
        return folder
    world_type = OneProcess if process_count() == 1 else ManyProcesses
    with world_type.connect(cfg) as world, world.alone(folder):
        world.quiet = quiet
        _train(cfg, folder, world)
    return folder


def _train(cfg: DictConfig, folder: Path, world: World) -> None:
    t, batch_tokens, end = cfg.train, cfg.scale.batch_tokens, target_tokens(cfg)

    # ---- set up ----
    corpus = world.first_then_all(lambda: prepare(cfg.data, Path(cfg.data_dir)))
    if world.first:
        require_intact(corpus, t.part)
    length, sequences = cfg.scale.sequence_length, batch_tokens // cfg.scale.sequence_length
    data = TokenDataset(corpus, order_seed(cfg.seed, t.data_order), length, sequences, t.part, mixing_weights(cfg.data))
    stop = StopRequest(cfg.minutes)

    torch.manual_seed(cfg.seed)
    model = build(cfg.model, length)
    model.to(world.device)
    if cfg.parallel.recompute:
        model.train().gradient_checkpointing_enable({"use_reentrant": False})
    world.place(cfg, model)
    parameters = list(model.parameters())
    optimizer = make_optimizer(t, model)
    overwriting = Overwriting(t.overwrite_interval, t.overwrite_n, model)
    state = TrainingState(model, optimizer, OnlineAverages(t.online_ema or [], model), overwriting)
    start = resume(cfg, state, world)
    rollouts = None if t.reward_domain is None else Rollouts(cfg, corpus, model)

    manifest = RunManifest(cfg, corpus, world)
    manifest.begin(start)
    drop_old = partial(drop_old_checkpoints, folder, t.checkpoints_kept, t.fork_points)
    if world.first:  # a kill can have come between a checkpoint and this
        drop_old()
        averages = [average_dir(folder, alpha, start) for alpha in state.averages.alphas]
        for kept in (snapshot_dir(folder, start), checkpoint_dir(folder, start), *averages):
            sweep(kept.parent)

    def save_snapshot(tokens: int) -> None:
        stored = t.snapshot_dtype, partial(manifest.complete_snapshot, tokens)
        with state.weights_to_use():
            world.save_snapshot(snapshot_dir(folder, tokens), model.state_dict(), *stored)
        for i, alpha in enumerate(state.averages.alphas):
            world.save_snapshot(average_dir(folder, alpha, tokens), state.averages.weights(i), *stored)

    label = size_label(cfg.model.kind, sum(p.numel() for p in parameters), cfg.model.stands_for)
    goal = f"from {start:,} to {end:,} tokens" if start else f"to {end:,} tokens"
    world.print(f"{cfg.run_id}: {label}; {run_in_words(cfg)}, {goal}, in {folder}")

    # ---- train ----
    tokens, steps = start, range(start // batch_tokens, end // batch_tokens)
    with stop, Progress(cfg, start, world.first, manifest.wandb(), quiet=world.quiet) as progress:
        if cfg.init.parent.run is not None and not snapshots(folder):
            save_snapshot(start)  # so that what a run starts from can be scored too
        inputs_and_targets = batches(data, steps, world.device, world.rows(sequences))
        for step, (inputs, targets) in zip(steps, inputs_and_targets, strict=True):
            rate = learning_rate(cfg.schedule, t.total_tokens, step * batch_tokens, cfg.init)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = world.backward(inputs, targets) if rollouts is None else rollouts.backward(step)
            norm = clip_gradients(parameters, t.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            tokens = (step + 1) * batch_tokens
            overwriting.update(tokens)
            state.averages.update()

            progress.add(loss, norm)
            log = (step + 1) % t.log_interval == 0 or tokens == end
            last = tokens == end or (log and world.any(stop.pending))
            snapshot = _keeps_snapshot(t, tokens)
            checkpoint = last or tokens % t.checkpoint_interval == 0 or tokens in t.fork_points
            if log or snapshot or checkpoint:
                progress.check_finite(tokens)
            if log:
                progress.log(tokens, rate)
            if snapshot:
                save_snapshot(tokens)
            if checkpoint:
                world.save_checkpoint(checkpoint_dir(folder, tokens), state, tokens, then=drop_old)
            if last:
                break
        world.finish()
        progress.link_snapshots()

    # ---- report ----
    manifest.write(tokens, progress.seconds)
    world.print(f"{cfg.run_id}: trained to {tokens:,} of {end:,} tokens in {duration(progress.seconds)}")
    if stop.signalled:
        raise SystemExit(REQUEUE)


def _keeps_snapshot(t: TrainConfig, tokens: int) -> bool:
    """Return whether the run keeps its weights after `tokens` tokens: at its interval, and at its end."""
    if tokens == t.total_tokens:
        return True
    return tokens % t.snapshot_interval == 0 and (t.snapshots_at is None or tokens in t.snapshots_at)
