"""B7: merging along fine-tuning and along reinforcement learning."""

from __future__ import annotations

import style
from drawing.captions import BITS, model_text, pma_text, runs_text
from drawing.description import Figure, Panel, figure
from drawing.numbers import mean_points, of_every_seed
from drawing.parts import ZERO
from drawing.scores import scores
from records import Study
from verdicts.evidence.beyond import policy_gain, reward_gains, tuned_gain

_MERGE = "merge over the last"


def describe(study: Study) -> Figure:
    """What the merge gains over the last model: right answers, reward, held-out text."""
    table = scores(study, "post_training")
    seeds = {seed for values in table["values"] for seed in values}
    bits = style.METRICS["bits_per_byte"].gain
    wanted = (
        ("fine-tuning: right answers", bits, tuned_gain, "tasks", [_MERGE]),
        ("policy: reward", "gain (share of right answers)", reward_gains, "text", [_MERGE, "last over the start"]),
        ("policy: held-out text", bits, policy_gain, "text", [_MERGE]),
    )
    panels = []
    for name, ylabel, evidence, measure, places in wanted:
        numbers = of_every_seed(study, "post_training", evidence, measure)
        points = mean_points(numbers, range(len(places)), "", style.BLUE, 0.2, dash="", marker="s")
        panels.append(Panel(name, "", ylabel, (points,), (ZERO,), dict(enumerate(places))))
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
        see="Above zero the merge of ten models is better than the last. In the middle: what the policy learned, too.",
        lead=panels[:2],
    )
