"""python -m pma.evaluate model=DIR [suite=proxy|paper] [corpus=DIR]"""

from pma.cli import run
from pma.evaluate.command import evaluate

if __name__ == "__main__":
    run(evaluate, "evaluate", "command")
