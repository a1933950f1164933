"""The plan: its memory formulas against measurement, its sums, what it covers, what it refuses."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

from pma.config import CONF_DIR, ModelConfig, TrainConfig, register
from pma.merge import engine
from pma.model.build import build
from pma.model.loss import Bf16Loss, loss
from pma.plan import runs as plan
from pma.plan.__main__ import PlanJob
from pma.plan.memory import activation_bytes, check_shards, layer_activations, outer_activations, sizes, training_memory
from pma.plan.show import BEGIN, END, text, write_docs
from pma.reproduce.experiment import expand, runs_of
from pma.reproduce.job import ReproduceJob
from pma.train.objective import make_optimizer

register(PlanJob, ReproduceJob)

SEQUENCES, LENGTH = 2, 128


def small(kind: str, **changes) -> ModelConfig:
    name = {"dense": "dense_411m", "moe": "moe_1.3b_13b"}[kind]
    path = CONF_DIR / "model" / "smoke" / f"{name}.yaml"
    m = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ModelConfig), OmegaConf.load(path)))
    # Widths that differ from each other, so that no term of a formula can stand in for another.
    return replace(m, hidden_size=96, layers=3, heads=4, kv_heads=2, head_dim=16, **changes)


def job(**changes):
    return OmegaConf.structured(PlanJob(**changes))


def trained(m: ModelConfig, dtype: torch.dtype = torch.float32, recompute: bool = False) -> tuple[nn.Module, int]:
    """A model after a backward pass, and the bytes that autograd kept for it, but for parameters and their copies."""
    torch.manual_seed(0)
    model = build(m, LENGTH)
    for module in model.modules():  # as on a GPU
        if hasattr(module, "sorted_forward"):
            module.forward = module.sorted_forward
    if recompute:
        model.train().gradient_checkpointing_enable({"use_reentrant": False})
    inputs, targets = torch.randint(m.vocab_size, (2, SEQUENCES, LENGTH))
    with torch.no_grad():
        loss(model, inputs, targets)  # transformers puts hooks in at the first call
    weights = {tuple(p.shape) for p in model.parameters() if p.ndim > 1} - {(m.vocab_size, m.hidden_size)}
    weights |= {tuple(shape[::-1]) for shape in weights if len(shape) == 2}
    weights |= {(shape[0], shape[2], shape[1]) for shape in weights if len(shape) == 3}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        copy = dtype == torch.bfloat16 and tuple(tensor.shape) in weights
        if not copy and tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    step = loss if dtype == torch.float32 else Bf16Loss(model).rounded
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        total = step(*((model,) if dtype == torch.float32 else ()), inputs, targets)[1]
    found = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    total.backward()
    return model, found


kinds = pytest.mark.parametrize("kind", ["dense", "moe"])


@kinds
@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_are_what_autograd_keeps(kind, qk_norm, dtype):
    m = small(kind, qk_norm=qk_norm)
    _, measured = trained(m, dtype)
    assert activation_bytes(m, SEQUENCES * LENGTH, LENGTH, dtype.itemsize) == pytest.approx(measured, rel=0.1)


@kinds
def test_recomputation_keeps_inputs_of_layers(kind):
    m, tokens = small(kind), SEQUENCES * LENGTH
    _, measured = trained(m, recompute=True)  # what a layer computes again passes no hook
    one_layer = trained(m)[1] - trained(replace(m, layers=m.layers - 1))[1]  # and its load balancing
    formula = activation_bytes(m, tokens, LENGTH, 4, recompute=True)
    assert formula == pytest.approx(measured + one_layer, rel=0.1)
    assert outer_activations(m, tokens, LENGTH, 4) + tokens * layer_activations(m, 4) < formula


@kinds
def test_parameters_gradients_and_moments_are_what_a_step_holds(kind):
    m = small(kind)
    model, _ = trained(m)
    optimizer = make_optimizer(TrainConfig(), model)
    optimizer.step()
    memory = training_memory(m, sizes(m), 1, SEQUENCES * LENGTH, LENGTH, recompute=False, gpu=False)
    assert memory.parameters == pytest.approx(sum(p.nbytes for p in model.parameters()), rel=0.1)
    assert memory.gradients == pytest.approx(sum(p.grad.nbytes for p in model.parameters()), rel=0.1)
    moments = sum(value.nbytes for state in optimizer.state.values() for value in state.values())
    assert memory.optimizer == pytest.approx(moments, rel=0.1)


@kinds
@pytest.mark.parametrize("gpus", [2, 3, 8])  # more than the experts too, and where nothing divides evenly
def test_shards_are_those_of_fsdp(kind, gpus):
    m = small(kind)
    check_shards(m, sizes(m), gpus)
    with pytest.raises(AssertionError, match="counted"):
        check_shards(m, replace(sizes(m), shapes=sizes(m).shapes[:-10]), gpus)
    assert not torch.distributed.is_initialized()


@pytest.fixture(scope="module")
def paper() -> tuple:
    return plan.plans(job(experiment="figure_4"))


@pytest.fixture(scope="module")
def cpu() -> tuple:
    return plan.plans(job(scale="cpu"))


def rows_of(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_totals_are_the_sums_of_the_rows(cpu):
    found = re.findall(r"(?:^\|.*\n?)+", text(job(scale="cpu"), *cpu), re.M)
    checked = 0
    for table in map(rows_of, found):
        if table[-1][0] != "total":
            continue
        for column, total in enumerate(table[-1]):
            if column and total:
                numbers = [float(row[column].replace(",", "")) for row in table[2:-1]]
                half = len(numbers) * 0.5 * 10.0 ** -len(table[2][column].partition(".")[2])
                assert float(total.replace(",", "")) == pytest.approx(sum(numbers), rel=5e-3, abs=half), table[0][
                    column
                ]
                checked += 1
    assert checked >= 8


def test_all_runs_and_experiments_of_a_scale_are_named(cpu):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        reproduction = compose("reproduce", ["scale=cpu", "experiment=all"])
        experiments = expand(reproduction)
    wanted = {f"{run}-seed{seed}" for e in experiments for run, seed in runs_of(reproduction, e)}
    runs, found = cpu
    assert wanted <= {run.run for run in runs} and [e.experiment for e in found] == [e.name for e in experiments]
    shown = text(job(scale="cpu"), *cpu)
    assert all(f"| {name} |" in shown for name in wanted | {e.name for e in experiments})
    assert sorted(name for e in found for name in e.runs) == sorted(run.run for run in runs)


def test_a_gpu_plan_fits_and_follows_from_its_rates(paper):
    (run,), (experiment,) = paper
    options = PlanJob()
    assert run.layout.memory.total <= options.gpu_memory * (1 - options.headroom)
    assert run.hours <= 24 * options.days
    assert run.gpu_hours * 3600 * options.peak_flops * options.mfu_moe == pytest.approx(run.flops)
    assert experiment.alone == pytest.approx(run.gpu_hours + experiment.scoring)


def test_hours_without_text_to_train_on_are_named(cpu):
    line = "for figure_6, which is left out of experiment=all until"
    assert line not in text(job(scale="cpu"), *cpu)
    assert line in text(job(experiment="figure_6"), *plan.plans(job(experiment="figure_6")))


def test_what_cannot_fit_is_refused_with_the_mend():
    with pytest.raises(ValueError, match=r"moe_main-seed0.*gpu_memory=BYTES"):
        plan.plans(job(experiment="figure_4", gpu_memory=8e9))
    with pytest.raises(ValueError, match="days=0.001"):
        plan.plans(job(experiment="figure_4", days=0.001))
    with pytest.raises(ValueError, match="gpus=7: give a divisor"):
        plan.plans(job(experiment="figure_4", gpus=7))


def test_the_command_ends_in_one_line_for_a_user_error():
    command = [sys.executable, "-m", "pma.plan", "experiment=figure_4", "gpus=7"]
    environment = {**os.environ, "PYTHONPATH": str(CONF_DIR.parent / "src")}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and result.stderr.startswith("error: gpus=7"), result.stderr


@pytest.mark.parametrize("changes", [{"mfu_moe": 0.0}, {"mfu_dense": 1.5}, {"headroom": 1.0}, {"gpu_memory": 0.0}])
def test_impossible_options_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        plan.check(job(**changes))


def test_disk_counts_what_training_keeps():
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("config", ["scale=smoke", "run=moe_main"])
    cfg.stop = 40 * cfg.scale.merge_interval
    cfg.train.fork_points = [20 * cfg.scale.merge_interval]
    assert plan.disk_bytes(cfg, 10) == 10 * (4 * 80 + 12 * (cfg.train.checkpoints_kept + 1))
    cfg.train.snapshots_at = [0, 512, 1024, 41 * 512]
    assert plan.disk_bytes(cfg, 10) == 10 * (4 * 2 + 12 * (cfg.train.checkpoints_kept + 1))


def test_the_merge_rate_is_the_engines():
    assert PlanJob().merge_rate == engine._RATE


def test_docs_change_between_the_markers_only(tmp_path: Path):
    path = tmp_path / "scale.md"
    write_docs(path, "first")
    path.write_text(f"# Title\n\nbefore\n{path.read_text().partition('## The plan')[2]}after\n")
    write_docs(path, "second")
    assert re.sub(r"\s+", " ", path.read_text()) == f"# Title before {BEGIN} second {END} after "
    path.write_text(f"{BEGIN}\n")
    with pytest.raises(ValueError, match="only one of the markers"):
        write_docs(path, "third")
