"""Evaluation through lm-eval: suites, scores and their cache."""

import logging

from pma.evaluate.scorer import Score, Scorer
from pma.evaluate.suites import Suite, load_suite
from pma.evaluate.tasks import write_tasks

logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of handing it a loaded model, which is the point here

__all__ = ["Score", "Scorer", "Suite", "load_suite", "write_tasks"]
