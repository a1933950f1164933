"""Kills, damaged inputs, full disks and rival writers: `python tests/stress/stress.py`, or `make stress`.

Every trial is drawn from --seed, its campaign and its number, and its outcome is a line of OUT/trials.jsonl: stop at
any time, and the same command goes on. At the end a table counts what came of them; the exit code is 1 if anything but
the right result or one line ever did. `--only NAME --trial 17` looks at one trial again, and keeps its folder.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import shutil
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from random import Random
from typing import get_args

import campaigns
from campaign import GOOD, Campaign, Outcome, Verdict
from tqdm import tqdm

VERDICTS = get_args(Verdict)
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1", "PMA_NEXT": "no"}


def attempt(campaign: Campaign, number: int, seed: int, out: Path, keep: bool = False) -> dict:
    """Run one trial in a folder of its own, which stays when the outcome is bad; return its row."""
    folder = out / campaign.name.replace(" ", "-") / f"{number:04d}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    try:
        outcome = campaign.trial(Random(f"{seed}/{campaign.name}/{number}"), folder)
    except BaseException:  # a mistake of the campaign itself must not pass for a good trial, nor end the others
        outcome = Outcome("traceback", "of the campaign: " + traceback.format_exc()[-1500:])
    if outcome.verdict in GOOD and not keep:
        shutil.rmtree(folder)
    return {
        "campaign": campaign.name,
        "trial": number,
        "seed": seed,
        "verdict": outcome.verdict,
        "note": outcome.note,
        "seconds": round(time.monotonic() - began, 2),
    }


def known(log: Path, seed: int) -> list[dict]:
    """Rows of the trials that are done; half a line, as a kill leaves it, is taken off the file."""
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    if whole != lines:
        log.write_text("".join(whole))
    return [row for row in map(json.loads, whole) if row["seed"] == seed]


def run(chosen: dict[Campaign, int], seed: int, out: Path, jobs: int) -> list[dict]:
    """Run what is not done of each campaign's first trials; return all rows, in order.

    Args:
        chosen: how many trials of each campaign.
        jobs: trials at once.
    """
    out.mkdir(parents=True, exist_ok=True)
    log = out / "trials.jsonl"
    every = [(campaign, number) for campaign, count in chosen.items() for number in range(count)]
    wanted = {(campaign.name, number): place for place, (campaign, number) in enumerate(every)}
    rows = [row for row in known(log, seed) if (row["campaign"], row["trial"]) in wanted]
    done = {(row["campaign"], row["trial"]) for row in rows}
    left = [(campaign, number) for campaign, number in every if (campaign.name, number) not in done]
    with ThreadPoolExecutor(jobs) as pool, open(log, "a") as file:
        futures = [pool.submit(attempt, campaign, number, seed, out) for campaign, number in left]
        try:
            with tqdm(total=len(wanted), initial=len(done), unit="trial", disable=not left) as bar:
                for future in as_completed(futures):
                    row = future.result()
                    rows.append(row)
                    file.write(json.dumps(row) + "\n")
                    file.flush()
                    if row["verdict"] not in GOOD:
                        bar.write(f"{row['campaign']} {row['trial']}: {row['verdict']}: {row['note']}")
                    bar.update()
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C no trial begins whose row nobody would write
    return sorted(rows, key=lambda row: wanted[row["campaign"], row["trial"]])


def table(rows: list[dict]) -> str:
    """Outcomes by campaign."""
    lines = ["| campaign | trials | " + " | ".join(VERDICTS) + " | seconds |", "|---" * (len(VERDICTS) + 3) + "|"]
    for name in [*dict.fromkeys(row["campaign"] for row in rows), "all"]:
        counted = [row for row in rows if name in ("all", row["campaign"])]
        counts = collections.Counter(row["verdict"] for row in counted)
        cells = [
            name,
            len(counted),
            *(counts[verdict] for verdict in VERDICTS),
            round(sum(row["seconds"] for row in counted)),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = {campaign.name: campaign for campaign in campaigns.ALL}
    parser.add_argument("--out", type=Path, default=Path("stress"), help="trials.jsonl, and the folders of bad trials")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="trials at once")
    parser.add_argument("--only", choices=every, action="append", help="a campaign; may stand several times")
    parser.add_argument("--trial", type=int, help="one trial of --only again, its folder kept")
    parser.add_argument("--sample", action="store_true", help="the few trials that make test runs")
    arguments = parser.parse_args()
    os.environ.update(ENVIRONMENT)  # of all commands
    # The process that all commands are forked from imports the campaigns too.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    picked = [every[name] for name in arguments.only or every]
    if arguments.trial is not None:
        for campaign in picked:
            print(
                json.dumps(
                    attempt(campaign, arguments.trial, arguments.seed, arguments.out.absolute(), keep=True), indent=1
                )
            )
        return
    chosen = {campaign: campaign.sample if arguments.sample else campaign.trials for campaign in picked}
    rows = run(chosen, arguments.seed, arguments.out.absolute(), arguments.jobs)
    print(table(rows))
    if bad := [row for row in rows if row["verdict"] not in GOOD]:
        sys.exit(f"{len(bad)} bad trials; their folders lie below {arguments.out}")


if __name__ == "__main__":
    main()
