"""Training throughput with W&B tracking offline against off: the same run, in turn, in fresh processes.

python benchmarks/tracking.py            # about 3 minutes on 2 cores
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def seconds(work: Path, name: str, mode: str, tokens: int) -> float:
    """Seconds of training (start-up aside, closing of the W&B run included) of one run."""
    command = [sys.executable, "-m", "pma.train", "run=moe_main", f"run_id={name}", f"stop={tokens}", "threads=1"]
    subprocess.run([*command, f"runs_dir={work}", f"tracking.mode={mode}"], check=True, stdout=subprocess.DEVNULL)
    return json.loads((work / "cpu" / name / "manifest.json").read_text())["seconds"]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=368640)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds(Path(folder), "warm", "off", 24576)  # the corpus, if it is missing
        ratios = []
        for i in range(args.rounds):
            order = ("off", "offline") if i % 2 else ("offline", "off")
            took = {mode: seconds(Path(folder), f"{mode}-{i}", mode, args.tokens) for mode in order}
            ratios.append(took["offline"] / took["off"])
            print(f"off {took['off']:.2f} s, offline {took['offline']:.2f} s, ratio {ratios[-1]:.3f}", flush=True)
    print(f"offline takes {100 * (statistics.median(ratios) - 1):+.1f} % (median of {args.rounds})")


if __name__ == "__main__":
    main()
