"""Evaluation through lm-eval: suites, scores and their cache."""

import logging

from pma.evaluate.scorer import Score, Scorer, read_scores
from pma.evaluate.suites import Suite, load_suite
from pma.evaluate.tasks import write_tasks
from pma.evaluate.vllm import VllmScorer, vllm_class

logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of handing it a loaded model, which is the point here

__all__ = ["Score", "Scorer", "Suite", "VllmScorer", "load_suite", "read_scores", "vllm_class", "write_tasks"]
