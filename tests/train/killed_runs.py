"""Train a run that is killed at each of the given positions and started again, then let it end.

    python killed_runs.py OVERRIDES_JSON POSITION...

Each attempt is a process of its own, forked before torch has computed anything: importing torch anew for each would
take longer than training.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

from hydra import compose, initialize_config_dir

from pma.config import CONF_DIR, register
from pma.layout import snapshots
from pma.run import run_folder
from pma.train.loop import train


def start(cfg) -> int:
    """Train in a forked process; its number."""
    child = os.fork()
    if child == 0:
        train(cfg)
        os._exit(0)
    return child


def main() -> None:
    """Kill at each position, then train to the end."""
    overrides, *positions = sys.argv[1:]
    register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("config", json.loads(overrides))
    for position in map(int, positions):
        child = start(cfg)
        while position not in snapshots(run_folder(cfg)):
            assert os.waitpid(child, os.WNOHANG) == (0, 0), f"ended before {position} tokens"
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert os.waitpid(start(cfg), 0)[1] == 0


if __name__ == "__main__":
    main()
