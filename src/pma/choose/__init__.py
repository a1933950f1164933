"""Choosing how many checkpoints of a run to merge, how far apart, and with which weights."""
