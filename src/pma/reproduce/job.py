"""The schema of `python -m pma.reproduce` and of conf/experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from pma.config import ScaleConfig, TrackingConfig
from pma.merge.weights import METHODS as WEIGHTS

METHODS = ("last", *WEIGHTS, "online_ema")
SUITES = ("proxy", "instruct", "reward", "paper")
MEASUREMENTS = ("landscape", "curvature")
GRID_POINTS = 8  # along an axis of a landscape's plane; even, so that none of them is the merged model itself
HELDOUT_SEQUENCES = 32  # of held-out text, as many tokens each as a training sequence, for losses and derivatives


@dataclass
class RecipeConfig:
    """Which snapshots with which weights; intervals are multiples of the scale's merge_interval."""

    # last | sma | wma | ema | linear | cosine | 1-sqrt | online_ema: the average of every step that the run kept
    method: str = MISSING
    n: int = 1
    interval: float = 1.0
    alpha: float | None = None  # of ema and online_ema
    # Runs whose snapshot at the same point is merged in, instead of older ones of the run itself; goes with n = 1
    others: list[str] = field(default_factory=list)
    points: list[float] | None = None  # only at these points; null: at all of the part


@dataclass
class PartConfig:
    """Runs of an experiment and what is scored of them. Without points the runs are only trained, for their curves."""

    runs: list[str] = MISSING  # names in conf/run
    suite: str = "proxy"
    points: list[float] = field(default_factory=list)  # where merges end, in multiples of the scale's merge_interval
    recipes: list[RecipeConfig] = field(default_factory=list)
    noise_points: int = 0  # last snapshots, merge_interval apart, for the signal-to-noise ratio


@dataclass
class WindowConfig:
    """Snapshots of one run."""

    n: int = 10
    interval: float = 1.0  # multiples of the scale's merge_interval


@dataclass
class MeasurementConfig:
    """Something measured of windows of snapshots that is not the score of a merge."""

    kind: str = MISSING  # landscape | curvature
    run: str = MISSING
    end: float = MISSING  # of every window, in multiples of the scale's merge_interval
    windows: list[WindowConfig] = field(default_factory=lambda: [WindowConfig()])  # landscape: one
    reference: str | None = None  # curvature: run whose last snapshot is the reference; null: the window's mean


@dataclass
class ExperimentConfig:
    """One figure or table of the paper: the runs, recipes and suites it needs."""

    name: str = MISSING
    title: str = MISSING
    claims: list[str] = field(default_factory=list)  # those it decides
    parts: list[PartConfig] = field(default_factory=list)
    measurements: list[MeasurementConfig] = field(default_factory=list)
    includes: list[str] = field(default_factory=list)  # instead of all that: other experiments; "*": every one
    after: str | None = None  # place among all experiments; null: figures, tables, then others by name


@dataclass
class ReproduceJob:
    """Everything `python -m pma.reproduce` reads."""

    experiment: ExperimentConfig = field(default_factory=ExperimentConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    seeds: list[int] = field(default_factory=lambda: [0])  # of every run, and of what is forked from it
    jobs: int = 2  # runs that train, or models that are scored, at once
    minutes: float | None = None  # stop after so many; the same command goes on
    # null: train and score in processes here | slurm: jobs, one a run and one for some merges | local: such
    # jobs on this machine, `jobs` at once
    launcher: str | None = None
    nodes: int = 1  # of a training job
    gpus_per_node: int = 0  # of a job; as many processes a node train the run together
    merges_per_job: int = 4  # of one run, that a scoring job or process takes one after the other
    scoring_python: str | None = None  # interpreter of scoring jobs, where vLLM has an environment of its own
    slurm: dict[str, Any] = field(default_factory=dict)  # options of sbatch: +slurm.partition=NAME
    slurm_setup: list[str] = field(default_factory=list)  # shell lines before a job's work
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    overrides: list[str] = field(default_factory=list)  # Hydra overrides for every training run
    device: str = "auto"
    threads: int = 0
    dry_run: bool = False
    data_dir: str = "data"
    runs_dir: str = "runs"
