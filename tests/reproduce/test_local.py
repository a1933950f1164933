"""The processes that train and score: nobody is left behind by a parent that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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


INTERRUPTED = """
import multiprocessing, signal, sys, time
from concurrent.futures import ProcessPoolExecutor
from pma.processes import ended_by_interrupt, start_worker, submit

def work(seconds):
    try:
        print("begun", flush=True)
        time.sleep(seconds)
    except KeyboardInterrupt:
        print("cleaned up", flush=True)
        raise

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        context = multiprocessing.get_context("spawn")  # as pma.reproduce.local, which takes longer to import
        with ProcessPoolExecutor(2, context, start_worker) as pool, ended_by_interrupt():  # one has nothing to do
            submit(pool, work, 60).result()
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("whom", ["parent alone", "group"])
def test_ctrl_c_ends_the_tasks_in_work_without_a_traceback(tmp_path, whom):
    script = tmp_path / "parent.py"
    script.write_text(INTERRUPTED)
    environment = {**os.environ, "PYTHONPATH": str(CONF_DIR.parent / "src")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment, start_new_session=True, **pipes)
    assert parent.stdout is not None and parent.stdout.readline() == "begun\n"
    os.kill(parent.pid, signal.SIGINT) if whom == "parent alone" else os.killpg(parent.pid, signal.SIGINT)
    out, errors = parent.communicate(timeout=50)
    assert (parent.returncode, out, errors) == (130, "cleaned up\n", "")
