"""Following a live run."""
