"""Damage to a file: to its bytes, or to what it says as JSON."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

Damage = Callable[[Path, Random], None]

# What stands where something else should; 10**9 and 1e308 are numbers that nothing can be made of.
ODD = (None, True, 0, -1, 10**9, 1e308, "", "text", "../x", [], [1], {}, {"a": 1})
ROOTS = ("[]", "null", "7", '"text"', "{}", "[[1]]", "{", "", "NaN", "\udcff")


def flip(path: Path, random: Random) -> None:
    """Flip one bit."""
    data = bytearray(path.read_bytes())
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    path.write_bytes(data)


def cut(path: Path, random: Random) -> None:
    """Keep the beginning only."""
    data = path.read_bytes()
    path.write_bytes(data[: random.randrange(len(data))])


def garbage(path: Path, random: Random) -> None:
    """Other bytes of the same number, all or a stretch of them."""
    data = bytearray(path.read_bytes())
    first = random.choice([0, random.randrange(len(data))])
    last = random.randint(first + 1, len(data))
    data[first:last] = random.randbytes(last - first)
    path.write_bytes(data)


def root(path: Path, random: Random) -> None:
    """Another JSON value than an object, or none."""
    path.write_bytes(random.choice(ROOTS).encode(errors="surrogateescape"))


def field(path: Path, random: Random) -> None:
    """A value of a JSON file, at any depth, becomes an odd one or goes."""
    value = json.loads(path.read_bytes())
    places = list(_places(value))
    if not places:
        return root(path, random)
    holder, key = random.choice(places)
    if random.random() < 0.3:
        del holder[key]
    else:
        holder[key] = copy.deepcopy(random.choice(ODD))
    path.write_text(json.dumps(value))


def _places(value: Any) -> Any:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in list(pairs):
        yield value, key
        yield from _places(below)


def line(path: Path, random: Random) -> None:
    """A line of a text file is lost, stands twice, or becomes one that says something else."""
    lines = path.read_bytes().splitlines(keepends=True)
    place = random.randrange(len(lines))
    other = random.choice(
        [b"", 2 * lines[place], b"[]\n", b"{}\n", b"null\n", b"\xff\xfe\n", lines[place][:-3] + b"\n"]
    )
    path.write_bytes(b"".join([*lines[:place], other, *lines[place + 1 :]]))


BYTES: tuple[Damage, ...] = (flip, cut, garbage)
JSON: tuple[Damage, ...] = (root, root, field, field, field, cut, garbage)
LINES: tuple[Damage, ...] = (line, line, line, cut, garbage, flip)


def damaged(path: Path, random: Random, kinds: tuple[Damage, ...], controls: float = 0.1) -> str:
    """Damage a file in one of these ways; return which, or nothing: then it is as it was.

    Args:
        controls: share of trials without damage, which have to come out right.
    """
    before = path.read_bytes()
    if random.random() < controls:
        return ""
    kind = random.choice(kinds)
    kind(path, random)
    return kind.__name__ if path.read_bytes() != before else ""
