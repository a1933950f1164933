"""Pre-trained Model Averaging: a replication of arXiv 2505.12082."""

__version__ = "0.1.0"

from pma import merge  # noqa: E402  (pma.merge(...) after `import pma`; it reads __version__)

__all__ = ["merge"]
