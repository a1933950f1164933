"""Several processes that publish one output at the same time: one succeeds, the others say so, and it is whole."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from random import Random

from campaign import HANG, Outcome, Running, begin, exit_code, failure, warm
from kills import left_aside
from kills_merge import Merge

FOLDER_ROUNDS = 5  # of one trial of bare publications, which take milliseconds


def rival_merges(random: Random, folder: Path) -> Outcome:
    """Two or three of the same merge, begun within a moment of each other."""
    kind = random.choice(["model", "many", "resumable"])
    merge = Merge(random, folder, kind)
    places = [folder / f"process-{k}" for k in range(random.choice([2, 2, 3]))]
    arguments = [argument.replace("output=", f"output={folder}/") for argument in merge.arguments]
    arguments = [argument.replace("output: ", f"output: {folder}/") for argument in arguments]
    running = []
    for place in places:
        place.mkdir()
        running.append(Running("pma.merge", *arguments, folder=place))
        time.sleep(random.random() * 0.02)
    ended = [each.end(HANG) for each in running]
    merge.before |= {place.name for place in places}
    winners = [each for each in ended if each.code == 0]
    note = f"{kind}: {len(ended)} at once, {len(winners)} succeeded"
    for bad in filter(None, map(failure, ended)):
        return Outcome(bad.verdict, f"{note}: {bad.note}")
    if len(winners) != 1:
        said = "; ".join(each.stderr.strip()[-200:] for each in ended)
        return Outcome("wrong", f"{note}: {said}")
    for place in places:
        for log in (".stdout", ".stderr"):
            (place / log).unlink(missing_ok=True)
    return merge.outcome(winners[0], note)


# ---- bare publications ----

_FILES = 4


def _publish(final: str, owner: int, at: float, replace: bool, seed: int) -> None:
    from pma.files import publish_folder

    os.setsid()
    random = Random(seed)
    while time.time() < at:
        pass
    try:
        with publish_folder(Path(final), replace=replace) as aside:
            for k in range(_FILES):
                (aside / f"{k}.txt").write_text(json.dumps(owner) * 1000)
                time.sleep(random.random() * 0.003)
    except ValueError:
        os._exit(1)
    os._exit(0)


def rival_folders(random: Random, folder: Path) -> Outcome:
    """Processes that publish one folder with pma.files, some of which are killed meanwhile."""
    for round_ in range(FOLDER_ROUNDS):
        replace, final = random.random() < 0.5, folder / f"snapshot-{round_}"
        count, at = random.choice([2, 3]), time.time() + 0.3
        there = replace and random.random() < 0.5
        if there:
            _fill(final)
        processes = [
            warm().Process(target=_publish, args=(str(final), k, at, replace, random.getrandbits(32)))
            for k in range(count)
        ]
        for process in processes:
            begin(process)
        victim = random.choice(processes) if random.random() < 0.4 else None
        if victim is not None:
            time.sleep(max(0, at - time.time()) + random.random() * 0.02)
            if exit_code(victim) is None and victim.pid is not None:
                os.kill(victim.pid, signal.SIGKILL)
        exits = [exit_code(process, HANG) for process in processes]
        if None in exits:
            for process in processes:
                process.kill()
            return Outcome("hang", f"{count} processes, replace={replace}")
        note = f"replace={replace}, {'one killed, ' if victim else ''}exits {exits}"
        if wrong := _wrong(final, exits, replace, there):
            return Outcome("wrong", f"{wrong}; {note}")
        _publish_alone(final, replace)
        _publish_alone(folder / f"next-{round_}", False)  # whoever comes next cleans up after the killed
        if over := left_aside(folder):
            return Outcome("left over", f"{over}; {note}")
    return Outcome("right")


def _fill(final: Path) -> None:
    final.mkdir()
    for k in range(_FILES):
        (final / f"{k}.txt").write_text(json.dumps(9) * 1000)


def _publish_alone(final: Path, replace: bool) -> None:
    from pma.files import publish_folder

    try:
        with publish_folder(final, replace=replace) as aside:
            _fill(aside / "inner")
    except ValueError:
        assert not replace


def _wrong(final: Path, exits: list[int | None], replace: bool, there: bool) -> str:
    """What is wrong with a folder that several published, in words."""
    if any(code not in (0, 1, -signal.SIGKILL) for code in exits):
        return "a traceback"
    killed = exits.count(-signal.SIGKILL)
    if not replace and exits.count(0) > 1:
        return "two say that they published it first"
    if exits.count(0) + killed == 0 or (replace and exits.count(1)):
        return "nobody succeeded" if not replace else "one that waits was refused"
    if not final.exists():
        # A kill between two renames of a replacement leaves the old one aside; only that may take the name away.
        return "" if exits.count(0) == 0 else "nothing stands there"
    texts = [path.read_text() for path in sorted(final.iterdir())]
    if len(texts) != _FILES or len(set(texts)) != 1 or len(texts[0]) != 1000:
        return f"a mixture: {[(path.name, path.stat().st_size) for path in sorted(final.iterdir())]}"
    return ""
