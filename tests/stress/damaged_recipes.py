"""Recipes that say something odd: weights and positions that are no numbers, windows of a billion checkpoints."""

from __future__ import annotations

from pathlib import Path
from random import Random

from campaign import Outcome, command, names
from merging import judge, merge, models
from oracle import decay_weights, read, weighted_sum

_GOOD = (0.0, 0.25, 0.5, 1.0, -0.5, 2.0)
_BAD = ("nan", "inf", "-inf", "1e308", "-1e308", "1e39", "1e400")


def odd_weights(random: Random, folder: Path) -> Outcome:
    """Weights that are not finite, too large for the sum, or too few."""
    sources = models(random, folder)
    numbers = [str(random.choice(_GOOD)) for _ in sources]
    bad = random.random() < 0.6
    if bad:
        for place in random.sample(range(3), random.randint(1, 3)):
            numbers[place] = random.choice(_BAD)
    elif random.random() < 0.3:
        numbers = numbers[: random.randint(0, 2)] + random.choice([[], ["1.0"] * 3])
        bad = len(numbers) != 3
    accumulate = random.choice(["float32", "float64"])
    before = names(folder)
    given = f"weights=[{','.join(numbers)}]"
    ended = merge(folder, sources, f"accumulate={accumulate}", "dtype=float64", method=given)
    expected, scale = None, 1.0
    if len(numbers) == 3:
        weights = [float(number) for number in numbers]
        expected = weighted_sum([read(source) for source in sources], weights)
        scale = 10 * max(1.0, *map(abs, weights))
    return judge(folder, ended, before, "weights", given if bad else "", expected, scale=scale)


def odd_positions(random: Random, folder: Path) -> Outcome:
    """Positions that are not finite, do not ascend, or are too few."""
    sources = models(random, folder)
    method = random.choice(["linear", "cosine", "1-sqrt"])
    positions = sorted(random.sample(range(-100, 1000), 3))
    numbers = [str(position) for position in positions]
    bad = random.random() < 0.6
    if bad:
        kind = random.randrange(3)
        if kind == 0:
            numbers[random.randrange(3)] = random.choice(["nan", "inf", "-inf", "1e308", "-1e308", "1e400"])
        elif kind == 1:
            numbers = numbers[::-1]
        else:
            numbers = numbers[: random.randint(0, 2)]
    before = names(folder)
    given = f"positions=[{','.join(numbers)}]"
    ended = merge(folder, sources, given, method=f"method={method}")
    expected = None
    if not bad:
        expected = weighted_sum([read(source) for source in sources], decay_weights(positions, method))
    elif ended.code == 0 and numbers == sorted(numbers, key=float) and len(numbers) == 3:
        expected = weighted_sum([read(source) for source in sources], decay_weights([*map(float, numbers)], method))
    return judge(folder, ended, before, "positions", given if bad else "", expected)


def odd_windows(random: Random, folder: Path) -> Outcome:
    """Numbers of checkpoints, distances and sizes that no run has."""
    run = folder / "run"
    sources = models(random, run, 4)
    for source in sources:
        (source / "trainer_state.json").write_text("{}")
    huge = random.choice([0, -1, 10**9, 10**18])
    key = random.choice(["last", "n", "every", "interval", "end", "tokens_per_step", "memory", "shard_size", "threads"])
    size = key in ("memory", "shard_size")
    given = {"last": 3, "end": 40, key: huge}
    if key == "n":
        del given["last"]
    before = names(folder)
    arguments = [f"{name}={value}" for name, value in given.items()]
    ended = command("pma.merge", f"run_dir={run}", "method=sma", "output=merged", *arguments, folder=folder)
    weights = [1 / 3] * 3 if key != "every" or huge == 1 else []
    expected = weighted_sum([read(source) for source in sources[1:]], weights) if weights else None
    renamed = {"n": "last", "tokens_per_step": "end" if huge > 0 else key}  # in tokens, no checkpoint stands at 40
    subject = renamed.get(key, key)
    fine = size and huge > 0 or (key == "threads" and huge == 0)
    return judge(folder, ended, before, subject, "" if fine else f"{key}={huge}", expected)
