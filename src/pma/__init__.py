"""Pre-trained Model Averaging: a replication of arXiv 2505.12082."""

__version__ = "0.1.0"
