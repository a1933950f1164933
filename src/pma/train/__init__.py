"""Pre-training: one run, from its config to its snapshots."""
