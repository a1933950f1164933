"""Seconds to a help text, a completion and a tiny merge, against importing Hydra and NumPy in the same rounds.

python benchmarks/startup.py            # under a minute on 2 cores
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

PEERS = {
    "python alone": ["-c", "pass"],
    "import hydra, numpy": ["-c", "import hydra, numpy"],  # what any command of this kind waits for
}
COMMANDS = {
    "import pma": ["-c", "import pma"],
    "merge --help": ["-m", "pma.merge", "--help"],
    "train --help": ["-m", "pma.train", "--help"],
    "evaluate --help": ["-m", "pma.evaluate", "--help"],
    "reproduce --help": ["-m", "pma.reproduce", "--help"],
    "train --cfg job": ["-m", "pma.train", "--cfg", "job"],
    "train run=<TAB>": ["-c", "from pma.train.__main__ import command; command()", "-sc", "query=bash"],
    "merge of three tiny models": ["-m", "pma.merge", "sources=[A,B,C]", "method=sma", "suspicious=warn", "output=out"],
}


def seconds(arguments: list[str], folder: Path) -> float:
    """Wall-clock seconds of one process."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    environment = {**os.environ, "COMP_LINE": "pma-train run="}
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    cases = PEERS | COMMANDS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i, model in enumerate("ABC"):
            (folder / model).mkdir()
            save_file({"weight": np.full((8, 8), i, np.float32)}, folder / model / "model.safetensors")
        for arguments in cases.values():  # once, for byte code and what numba compiles
            seconds(arguments, folder)
        times = {case: [] for case in cases}
        for _ in range(rounds):  # in turn, so that a busy machine slows all of them
            for case, arguments in cases.items():
                times[case].append(seconds(arguments, folder))
    peer = times["import hydra, numpy"]
    print(f"{'':28} seconds   ratio to import hydra, numpy (medians of {rounds} rounds)")
    for case, taken in times.items():
        ratio = statistics.median(own / other for own, other in zip(taken, peer, strict=True))
        print(f"{case:28} {statistics.median(taken):7.2f}   {ratio:5.1f}")


if __name__ == "__main__":
    main()
