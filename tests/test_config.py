"""conf/ composes as a whole; unknown keys and impossible values are refused by name."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from pma.config import CONF_DIR, config_hash, register, validate
from pma.reproduce.experiment import expand, recipes
from pma.reproduce.job import ReproduceJob
from pma.reproduce.runs import keep_needed, required
from pma.run import is_fork

SCALES = [path.stem for path in sorted((CONF_DIR / "scale").glob("*.yaml"))]
RUNS = [path.stem for path in sorted((CONF_DIR / "run").glob("*.yaml"))]
EXPERIMENTS = [path.stem for path in sorted((CONF_DIR / "experiment").glob("*.yaml")) if path.stem != "all"]


@pytest.fixture(scope="module")
def composed():
    """Composing takes Hydra a tenth of a second; the tests of this file compose each config once."""
    compose_config, known = Hydra.compose_config, {}

    def once(self, config_name, overrides, **options):
        key = (config_name, tuple(overrides), repr(sorted(options.items())))
        if key not in known:
            known[key] = compose_config(self, config_name=config_name, overrides=overrides, **options)
        return copy.deepcopy(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hydra, "compose_config", once)
        yield


@pytest.fixture(autouse=True)
def hydra(composed):
    register(ReproduceJob)
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        yield


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("run", RUNS)
def test_every_run_composes_and_is_possible_at_every_scale(scale, run):
    cfg = compose("config", [f"scale={scale}", f"run={run}"])
    validate(cfg)
    assert cfg.model.name.startswith(f"{scale}/")
    assert cfg.run_id == f"{run}-seed0"


def check_snapshots(job, experiments) -> None:
    """Every window of the experiments, and every parent of a run, lies in what the plan trains."""
    configs = required(job, experiments)
    for experiment in experiments:
        for part in experiment.parts:
            for run in part.runs:
                have = positions(configs, configs[run, 0])
                for recipe in recipes(part, job.scale.merge_interval):
                    window = {recipe.end - i * recipe.interval for i in range(recipe.n)}
                    assert window <= have, (experiment.name, run)
    for cfg in configs.values():
        if (parent := cfg.init.parent).run is not None:
            of = configs[parent.run, parent.seed]
            window = {parent.tokens - i * (parent.interval or 0) for i in range(parent.n)}
            assert window <= ({*of.train.fork_points} if parent.optimizer else positions(configs, of)), cfg.run_id


@pytest.mark.parametrize("scale", SCALES)
def test_all_experiments_find_their_snapshots(scale):
    job = compose("reproduce", ["experiment=all", f"scale={scale}", "seeds=[0]"])
    check_snapshots(job, expand(job))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_one_experiment_alone_finds_its_snapshots(experiment):
    job = compose("reproduce", [f"experiment={experiment}", "scale=smoke", "seeds=[0]"])
    check_snapshots(job, expand(job))


def test_at_gpu_scale_runs_keep_the_snapshots_that_any_experiment_reads():
    job = compose("reproduce", ["experiment=figure_3", "scale=gpu"])
    configs = required(job, expand(job))
    keep_needed(job, expand(job), configs)
    everything = compose("reproduce", ["experiment=all", "scale=gpu"])
    experiments = expand(everything)
    all_configs = required(everything, experiments)
    keep_needed(everything, experiments, all_configs)
    for key, cfg in configs.items():  # whichever experiment was asked for
        assert cfg.train.snapshots_at == all_configs[key].train.snapshots_at
        validate(cfg)

    def kept(cfg) -> set[int]:
        own = positions(all_configs, cfg) & {*cfg.train.snapshots_at, cfg.train.total_tokens, cfg.init.tokens or 0}
        parent = cfg.init.parent
        if parent.run is None:
            return own
        before = kept(all_configs[parent.run, parent.seed]) if is_fork(cfg) else set()
        return own | {t for t in before if t < parent.tokens} | {parent.tokens if is_fork(cfg) else 0}

    for experiment in experiments:
        for part in experiment.parts:
            for run in part.runs:
                for recipe in recipes(part, job.scale.merge_interval):
                    assert set(recipe.window) <= kept(all_configs[run, 0]), (experiment.name, run, recipe)
    main = all_configs["moe_main", 0]
    assert len(main.train.snapshots_at) < 0.7 * main.train.total_tokens / main.train.snapshot_interval


def positions(configs, cfg) -> set[int]:
    """Tokens of the snapshots of a trajectory, as far as the plan trains it."""
    parent, step = cfg.init.parent, cfg.train.snapshot_interval
    start = cfg.init.tokens or 0
    before: set[int] = {start} if parent.run else set()
    if parent.run is not None and parent.optimizer:
        start = parent.tokens
        before = {t for t in positions(configs, configs[parent.run, parent.seed]) if t < start} | {start}
    return before | {t for t in range(0, cfg.stop + 1, step) if t > start} | ({cfg.stop} & {cfg.train.total_tokens})


def test_a_run_is_planned_only_as_far_as_it_is_needed():
    job = compose("reproduce", ["experiment=figure_6"])
    configs = required(job, expand(job))
    assert configs["moe_main", 0].stop == 125 * job.scale.merge_interval
    assert list(configs)[0] == ("moe_main", 0)  # what others start from comes first
    assert configs["continued_pma", 0].init.parent.n == 10


def test_v_follows_the_stated_rule_at_every_scale():
    for scale in SCALES:
        values = OmegaConf.load(Path(CONF_DIR) / "scale" / f"{scale}.yaml")
        assert values.merge_interval == pytest.approx(values.main_tokens / 200, rel=0.01)


def test_unknown_keys_are_refused():
    with pytest.raises(ConfigCompositionException, match="schedule.peak_rl"):
        compose("config", ["schedule.peak_rl=1"])


@pytest.mark.parametrize(
    "override,key",
    [
        ("schedule.peak_lr=-1", "schedule.peak_lr=-1"),
        ("train.total_tokens=1000", "train.total_tokens=1000"),
        ("train.snapshot_interval=100", "train.snapshot_interval=100"),
        ("schedule.decay_tokens=99999744", "schedule.decay_tokens=99999744"),
        ("schedule.decay_shape=square", "schedule.decay_shape=square"),
        ("scale.micro_batches=3", "scale.batch_tokens="),
        ("model.kv_heads=3", "model.kv_heads=3"),
        ("model.experts_per_token=99", "model.experts_per_token=99"),
        ("model.vocab_size=7", "model.vocab_size=7"),
        ("stop=999", "stop=999"),
        ("init.parent={run: moe_main, tokens: 0, n: 1, optimizer: all}", "init.parent.optimizer"),
        ("init.rewarm_tokens=512", "init.rewarm_tokens"),
        ("train.clip_norm=0", "train.clip_norm=0"),
        ("tracking.mode=loud", "tracking.mode=loud"),
        ("run_id=../../x", "run_id"),
        ("run_id=''", "run_id"),
        ("run_id=a/b", "run_id"),
        ("run_id=..", "run_id"),
        ("init.parent={run: ../x, tokens: 5120}", "init.parent.run"),
    ],
)
def test_impossible_values_are_named_with_the_mend(override, key):
    with pytest.raises(ValueError, match=key) as caught:
        validate(compose("config", ["scale=smoke", override]))
    assert any(word in str(caught.value) for word in ("give", "choose", "fit"))


def test_identity_is_the_science_alone():
    base = config_hash(compose("config", []))
    same = ["threads=1", "tracking=off", "runs_dir=elsewhere", "run_id=x", "stop=65536"]
    same += ["train.checkpoint_interval=65536", "train.fork_points=[]"]
    for override in same:
        assert config_hash(compose("config", [override])) == base, override
    for override in ("seed=1", "schedule.peak_lr=1e-4", "scale.micro_batches=4", "train.clip_norm=null"):
        assert config_hash(compose("config", [override])) != base, override


def test_slurm_launcher_composes():
    cfg = compose("config", ["hydra/launcher=slurm"], return_hydra_config=True)
    assert cfg.hydra.launcher._target_.endswith("SlurmLauncher")


def test_a_model_trains_at_its_own_rate_where_the_scale_names_one():
    def rate(*overrides: str) -> float:
        return compose("config", ["scale=smoke", "+scale.peak_lrs={dense_2b: 0.5}", *overrides]).schedule.peak_lr

    assert rate("run=dense_2b") == 0.5 and rate("run=dense_8b") == rate("run=moe_main") != 0.5
    assert rate("run=lr_double") == 2 * rate("run=dense_411m")
