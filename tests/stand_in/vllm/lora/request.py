"""Where lm-eval looks for the name."""


class LoRARequest:
    """Never made."""
