"""Show a plan: as Markdown tables, as a picture, and in a section of a document."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from omegaconf import DictConfig

from pma.files import write_text
from pma.plan.experiments import ExperimentPlan, scored_tokens
from pma.plan.job import overrides
from pma.plan.memory import Memory
from pma.plan.runs import GPU_SCALES, RECOMPUTATION, RunPlan

matplotlib.use("Agg")  # draws to files, without a display

BEGIN, END = "<!-- plan:begin -->", "<!-- plan:end -->"


def table(columns: dict[str, str], rows: list[list[Any]], summed: tuple[str, ...] = ()) -> str:
    """A Markdown table; `columns` are names with formats, of those in `summed` the last row is the sum."""

    def line(row: list[Any]) -> str:
        cells = ("" if cell is None else format(cell, form) for cell, form in zip(row, columns.values(), strict=True))
        return f"| {' | '.join(cells)} |"

    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns), *map(line, rows)]
    if summed:
        sums = [sum(row[i] for row in rows) if name in summed else None for i, name in enumerate(columns)]
        lines.append(line(["total", *sums[1:]]))
    return "\n".join(lines)


def _run_table(job: DictConfig, runs: list[RunPlan]) -> str:
    gpu = job.scale in GPU_SCALES
    unit = "GPU" if gpu else "thread"
    time = _time(job)
    columns = {"run": "", "model": "", "tokens": ",", "FLOPs": ".3g", f"{unit}s": "", "micro-batches": ""}
    columns |= {"recompute": "", f"GB a {unit}": ",.1f" if gpu else ",.3f", "days": time, f"{unit}-hours": time}
    columns |= {"USD": ",.0f", "disk, GB": ",.1f"}
    rows = [
        [
            *(r.run, r.model, r.tokens, r.flops, r.layout.gpus, r.layout.micro_batches),
            *("yes" if r.layout.recompute else "no", r.layout.memory.total / 1e9, r.hours / 24),
            *(r.gpu_hours, r.gpu_hours * _price(job), r.disk / 1e9),
        ]
        for r in runs
    ]
    return table(columns, rows, ("tokens", "FLOPs", f"{unit}-hours", "USD", "disk, GB"))


def _time(job: DictConfig) -> str:
    return ",.2f" if job.scale == "paper" else ",.5f"


def _price(job: DictConfig) -> float:
    return job.price if job.scale in GPU_SCALES else 0.0


def _memory_table(runs: list[RunPlan]) -> str:
    parts = [name.replace("_", " ") for name in Memory.__dataclass_fields__]
    columns = {"model": "", "GPUs": "", "tokens at once": ","} | dict.fromkeys([*parts, "in all"], ",.3g")
    columns |= {"activations, all kept": ",.3g", "with recomputation": ",.3g"}
    rows = []
    for run in {run.shape: run for run in runs}.values():
        memory = run.layout.memory
        numbers = [*asdict(memory).values(), memory.total, *run.activations]
        rows.append([run.model, run.layout.gpus, run.tokens_at_once, *(number / 1e9 for number in numbers)])
    return table(columns, rows)


def _experiment_table(job: DictConfig, experiments: list[ExperimentPlan]) -> str:
    unit = "GPU" if job.scale in GPU_SCALES else "thread"
    columns = {"experiment": "", "runs new here": "", "models merged": ",", "merging, hours": _time(job)}
    summed = {f"training, {unit}-hours": _time(job), f"scoring, {unit}-hours": _time(job), "USD": ",.0f"}
    rows = [
        [
            *(e.experiment, ", ".join(e.runs), e.merges, e.merge_hours, e.training, e.scoring),
            *((e.training + e.scoring) * _price(job), e.alone),
        ]
        for e in experiments
    ]
    columns |= summed | {f"alone, {unit}-hours": _time(job)}
    return table(columns, rows, ("models merged", "merging, hours", *summed))


def _assumptions(job: DictConfig) -> str:
    source = "estimated from the items and shots of its suite" if job.scale == "paper" else "counted at scale cpu"
    source = "as given" if job.scoring_tokens else source
    scoring = f"Scoring: {scored_tokens(job):,} tokens a merge ({source}), forward passes only"
    merging = (
        f"Merging: {job.merge_rate * job.merge_cores / 1e9:.3g} GB of snapshots a second on {job.merge_cores} cores of "
        f"the host, measured from the page cache (src/pma/merge/options.py); slower where storage is."
    )
    if job.scale not in GPU_SCALES:
        return (
            f"Hours: one thread a run, by the rates fitted in src/pma/reproduce/cost.py. {scoring}, at the same "
            f"rates. {merging} Memory is that of the runs' formulas in fp32."
        )
    rule = (
        f"the smallest power of two on which a run fits and takes at most {job.days:g} days, with the fewest "
        f"micro-batches that do; layers are recomputed only where no number up to the sequences of a batch does without"
    )
    rule = "as given" if job.gpus else rule
    return (
        f"Assumed, not measured here: {job.mfu_dense:.0%} (dense) and {job.mfu_moe:.0%} (MoE) of a peak of "
        f"{job.peak_flops / 1e12:,.1f} TFLOP/s for training, {job.mfu_scoring:.0%} for scoring, {job.price:g} USD a "
        f"GPU-hour, {job.gpu_memory / 1e9:g} GB a GPU of which {job.headroom:.0%} stay free for the allocator and the "
        f"communication library. FLOPs are the model's (6 N + 12 L H Q T a token); where layers are recomputed a step "
        f"takes {RECOMPUTATION:.3g} times as long. GPUs: {rule}. Micro-batches are what scale.micro_batches has to be. "
        f"Snapshots: all, or those that an experiment reads, by scale.snapshots. {scoring}. {merging}"
    )


def text(job: DictConfig, runs: list[RunPlan], experiments: list[ExperimentPlan]) -> str:
    """The plan in Markdown."""
    gpu = job.scale in GPU_SCALES
    training, scoring = (sum(getattr(e, part) for e in experiments) for part in ("training", "scoring"))
    disk, merging = sum(run.disk for run in runs), sum(e.merge_hours for e in experiments)
    total = (
        f"In all, for experiment={job.experiment} at scale {job.scale}: {sum(r.flops for r in runs):.3g} FLOPs, "
        f"{training + scoring:,.1f} {'GPU' if gpu else 'thread'}-hours, {(training + scoring) * _price(job):,.0f} USD, "
        f"{disk / 1e12:,.3g} TB of snapshots and checkpoints, {merging:,.3g} hours of merging."
    )
    left_out = [e for e in experiments if e.without_text]
    if left_out:
        hours = sum(e.training + e.scoring for e in left_out)
        total += (
            f" {hours:,.1f} of the hours are for {', '.join(e.experiment for e in left_out)}, which is left out of "
            f"experiment=all until the data have the part that its runs train on."
        )
    shared = "What several experiments share counts in the first of them; the last column is what one takes alone."
    device = "GPU" if gpu else "process"
    peaks = f"Memory of one {device}, GB, by part (formulas: src/pma/plan/memory.py):"
    parts = [total, _assumptions(job), _run_table(job, runs), peaks, _memory_table(runs), shared]
    return "\n\n".join([*parts, _experiment_table(job, experiments)])


def draw(job: DictConfig, runs: list[RunPlan], path: Path) -> None:
    """GPU-hours by run, and memory of a GPU by part, as an SVG."""
    style = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "plan"}
    with plt.rc_context(style):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 6), layout="constrained")
        colors = {"dense": "#E69F00", "moe": "#0072B2"}
        for kind, color in colors.items():  # points: a bar has no length on a logarithmic axis
            mine = [run for run in runs if run.kind == kind]
            names, hours = [run.run for run in mine], [run.gpu_hours for run in mine]
            left.plot(hours, names, "o", color=color, label={"moe": "MoE"}.get(kind, kind))
        left.set(xscale="log", xlabel="GPU-hours (logarithmic)", title="Training, by run")
        left.grid(alpha=0.3)
        shapes = list({run.shape: run for run in runs}.values())
        labels = [f"{run.model.rpartition('/')[2]}, {run.layout.gpus} GPUs" for run in shapes]
        before = [0.0] * len(shapes)
        for part in Memory.__dataclass_fields__:
            widths = [getattr(run.layout.memory, part) / 1e9 for run in shapes]
            right.barh(range(len(shapes)), widths, left=before, label=part)
            before = [a + b for a, b in zip(before, widths, strict=True)]
        right.axvline(job.gpu_memory / 1e9, color="black", linestyle="--", linewidth=1, label="one GPU has")
        right.set(yticks=range(len(shapes)), yticklabels=labels, xlabel="GB", title="Memory of one GPU, by part")
        for axes in (left, right):
            axes.invert_yaxis()
            axes.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=4)
        image = io.StringIO()
        figure.savefig(image, format="svg", metadata={"Date": None})
        plt.close(figure)
    write_text(path, image.getvalue())


def write(job: DictConfig, runs: list[RunPlan], experiments: list[ExperimentPlan], folder: Path) -> tuple[Path, Path]:
    """Write the plan into the section of `folder`/plan.md, and its picture; return both paths.

    The section names the command that wrote it, with what it changed of the defaults.
    """
    document, picture = folder / "plan.md", folder / "plan.svg"
    changed = overrides(job)
    command = f"python -m pma.plan {changed} docs={job.docs}" if changed else "make plan SCALE=paper"
    draw(job, runs, picture)
    image = f"![GPU-hours by run and memory of one GPU by part]({picture.name})"
    wrote = f"`{command}` wrote what follows; nothing of it has been run."
    write_section(document, f"{wrote}\n\n{text(job, runs, experiments)}\n\n{image}")
    return document, picture


def write_section(path: Path, plan: str) -> None:
    """Put the plan between the markers of a Markdown file; add the file, or a section, where they are missing.

    Raises:
        ValueError: when only one of the markers is there.
    """
    old = path.read_text(encoding="utf-8") if path.exists() else "# The plan of the paper's sizes\n"
    if (BEGIN in old) != (END in old):
        raise ValueError(f"{path}: only one of the markers {BEGIN} and {END} is there; put the other back")
    if BEGIN not in old:
        old = f"{old.rstrip()}\n\n## The plan\n\n{BEGIN}\n{END}\n"
    before, after = old.partition(BEGIN)[0], old.partition(END)[2]
    write_text(path, f"{before}{BEGIN}\n{plan}\n{END}{after}")
