"""The processes that train and score: nobody is left behind by a parent that was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from pma.config import CONF_DIR

PARENT = """
import os, sys, time
from pma.reproduce.local import spawned

if __name__ == "__main__":
    with spawned(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 60)
        time.sleep(60)
"""


def test_workers_end_when_their_parent_alone_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(CONF_DIR.parent / "src")}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    until = time.monotonic() + 20
    while Path(f"/proc/{worker}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()
