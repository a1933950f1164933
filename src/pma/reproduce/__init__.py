"""Experiments of the paper: planned, trained, scored, recorded."""
