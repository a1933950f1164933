"""Keeping the merges of a live training run up to date, whoever trains it."""
