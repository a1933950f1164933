"""python -m pma.evaluate model=DIR [suite=proxy|instruct|paper] [backend=hf|vllm] [corpus=DIR]"""

from pma.cli import run
from pma.evaluate.command import evaluate


def command() -> None:
    """The console script."""
    run(evaluate, "evaluate", "command")


if __name__ == "__main__":
    command()
