"""A search for the best merge killed at any moment: the same command gives the table of a search never killed."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from campaign import Ended, Outcome, Running, command
from kills import Killer, finished, writing
from prepared import prepared
from tiny import scored_run

KILLS = 4  # of one trial


def search(folder: Path) -> list[str]:
    """Arguments of the command."""
    place = prepared(folder, "scored-run", scored_run)
    return [f"run_dir={place / 'run'}", f"text={place / 'held.jsonl'}", "output=out", "threads=1", "device=cpu"]


def table(folder: Path, ended: Ended) -> tuple[list[str], str]:
    """What a search ends with: its lines but for the time, and its page."""
    lines = ended.stdout.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("scored in"))
    return lines[first + 1 :], (folder / "out/index.html").read_text()


def killed_search(random: Random, folder: Path) -> Outcome:
    """A search that is killed again and again, and then let finish."""
    given = search(folder)
    expected, output = whole_table(folder), folder / "out"
    killer = Killer(random, usual_seconds(folder), lambda: writing(output))
    while not killer.enough(KILLS):
        ended = killer.kill(Running("pma.choose", *given, folder=folder))
        if ended.code > 0:
            return Outcome("traceback", f"{ended.stderr[-600:]}; {killer.note}")
        if ended.code == 0 and list(table(folder, ended)) != expected:
            return Outcome("wrong", f"another table; {killer.note}")
    return searched(command("pma.choose", *given, folder=folder), folder, expected, killer.note)


def searched(ended: Ended, folder: Path, expected: list, note: str) -> Outcome:
    """What came of the same command in the end."""
    return finished(ended, folder, note, lambda: "" if list(table(folder, ended)) == expected else "another table")


def _whole(folder: Path) -> Path:
    """Where the end of a search that nobody stops is kept."""
    given = search(folder)

    def make(aside: Path) -> None:
        ended = command("pma.choose", *given, folder=aside)
        assert ended.code == 0, ended.stderr[-1500:]
        (aside / "table.json").write_text(json.dumps(table(aside, ended)))
        (aside / "seconds").write_text(str(ended.seconds))

    return prepared(folder, "searched", make)


def whole_table(folder: Path) -> list:
    """What a search that nobody stops ends with."""
    return json.loads((_whole(folder) / "table.json").read_text())


def usual_seconds(folder: Path) -> float:
    """What that search took."""
    return float((_whole(folder) / "seconds").read_text())
