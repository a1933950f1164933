"""Merging snapshots: weights, selection and the streaming average."""

from pma.merge.engine import average, merge_folders
from pma.merge.select import window
from pma.merge.weights import ema, explicit, method_weights, sma, wma

__all__ = ["average", "ema", "explicit", "merge_folders", "method_weights", "sma", "window", "wma"]
