"""B7: merging along fine-tuning and along reinforcement learning."""

from __future__ import annotations

import style
from drawing.captions import BITS, model_text, pma_text, runs_text
from drawing.description import Figure, Panel, figure
from drawing.numbers import mean_points, of_every_seed
from drawing.parts import ZERO
from drawing.scores import scores
from records import Study
from verdicts.evidence.beyond import policy_gain, reward_lost, tuned_gain


def describe(study: Study) -> Figure:
    """What the merge gains over the last model: right answers, reward, held-out text."""
    table = scores(study, "post_training")
    seeds = {seed for values in table["values"] for seed in values}
    bits = style.METRICS["bits_per_byte"].gain
    wanted = (
        ("fine-tuning: right answers", bits, of_every_seed(study, "post_training", tuned_gain, "tasks")),
        ("policy: reward", "gain (share of right answers)", -of_every_seed(study, "post_training", reward_lost)),
        ("policy: held-out text", bits, of_every_seed(study, "post_training", policy_gain)),
    )
    panels = []
    for name, ylabel, numbers in wanted:
        points = mean_points(numbers, [0], "", style.BLUE, 0.4, dash="", marker="s")
        look = {"levels": (ZERO,), "xticks": {0: "merge over the last"}}
        panels.append(Panel(name, "", ylabel, (points,), **look))
    unit = study.config("sft_long")["scale"]["merge_interval"]
    return figure(
        "Merging along fine-tuning and along reinforcement learning",
        [panels],
        (9, 3.8),
        model_text(study, "sft_long"),
        pma_text([(10, unit)]),
        f"Fine-tuning: twice as long as for Table 1, at a constant rate, suite instruct: {BITS}. Policy: REINFORCE on "
        "generated questions, from the end of the fine-tuning of Table 1 on; a reward is the share of right answers, "
        "in expectation over samples, to questions that were held out.",
        runs_text(seeds),
        legend=False,
        see="Above zero the merge of the last ten models is better than the last one.",
        lead=panels[:2],
    )
