"""Published pictures: docs/figures, drawn from the published records, and which of them show older records.

python analysis/pictures.py      write docs/figures/NAME.svg for every published experiment, claims/CN.svg for every
                                  claim, and the README's picture

Each picture carries a hash of all that it shows. `make verify` computes the hash anew from the records.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from drawing.description import Figure, Panel
from drawing.find import describe
from drawing.front import LOOKS, front
from drawing.picture import svg
from drawing.strips import describe_claim
from figures.figure_3 import front_panel
from records import ROOT, Study
from verdicts.decide import decide, published_scales
from verdicts.rules import all_rules

from pma.config import hash_json
from pma.files import write_text
from pma.words import short

FIGURES = ROOT / "docs" / "figures"
FRONT = "figure_3"  # the README shows its held-out text
# Of a figure; its other fields are for the page and for files.
_DRAWN = ("title", "blocks", "size", "caption", "xlabel")
_DIGITS = 9  # after the point: the last ones depend on the processor


def shown(content: Figure | Panel) -> str:
    """The hash of what a picture shows: every number, word, colour and size."""
    parts = [getattr(content, name) for name in _DRAWN] if isinstance(content, Figure) else content
    return hash_json(_plain(parts))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return [[_plain(key), _plain(content)] for key, content in value.items()]
    if isinstance(value, frozenset):
        return sorted(map(_plain, value))
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return f"{round(float(value), _DIGITS) + 0.0:.6g}"
    return value.item() if isinstance(value, np.generic) else value


def picture(folder: Path, scale: str, name: str) -> Path:
    """Where the picture of an experiment stands: scale cpu at the top, other scales in folders of their own."""
    return (folder if scale == "cpu" else folder / scale) / f"{name}.svg"


def claim_picture(folder: Path, scale: str, claim: str) -> Path:
    """Where the picture of a claim's numbers stands."""
    return picture(folder, scale, f"claims/{claim}")


def front_picture(folder: Path, look: str) -> Path:
    """Where the README's picture stands, light or dark."""
    return folder / f"readme-{look}.svg"


def pictures(study: Study, folder: Path) -> dict[Path, Figure | Panel]:
    """What every published picture of a scale shows.

    Raises:
        Missing: when a part of the records is not there.
    """
    wanted: dict[Path, Figure | Panel] = {}
    for name in study.experiments():
        wanted[picture(folder, study.scale, name)] = describe(study, name)
    for decision in (decision for rules in all_rules() for decision in decide(study.root, rules)):
        if strip := describe_claim(decision):
            wanted[claim_picture(folder, study.scale, decision.claim.name)] = strip
    if study.scale == "cpu" and FRONT in study.experiments():
        wanted |= {front_picture(folder, look): front_panel(study) for look in LOOKS}
    return wanted


def published(runs_dir: Path) -> list[Study]:
    """The published records, by scale."""
    return [Study(runs_dir / scale / "published") for scale in published_scales(runs_dir)]


def write(runs_dir: Path, folder: Path) -> list[Path]:
    """Write the pictures that are missing or show something else than the records say.

    Returns:
        Those that were written.
    """
    written = []
    for study in published(runs_dir):
        for path, content in pictures(study, folder).items():
            if isinstance(content, Figure):
                text = svg(content, shown(content))
            else:
                look = LOOKS[path.stem.rpartition("-")[2]]
                text = front(content, look, shown(content))
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                write_text(path, text)
                written.append(path)
    return written


def stale(runs_dir: Path, folder: Path) -> list[str]:
    """Pictures that are missing, or show something else than the published records now say, one line each."""
    lines = []
    for study in published(runs_dir):
        for path, content in pictures(study, folder).items():
            if not path.is_file():
                lines.append(f"{path}: missing; write it with python analysis/pictures.py")
            elif made_from(path) != shown(content):
                lines.append(f"{path}: older than its records; draw it anew with python analysis/pictures.py")
    return lines


def made_from(path: Path) -> str:
    """The hash that a picture carries; empty where it carries none."""
    match = re.search(r"<dc:source>(\w+)</dc:source>", path.read_text(encoding="utf-8"))
    return match[1] if match else ""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Draw the pictures of docs/figures from the published records.")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs")
    parser.add_argument("--out", type=Path, default=FIGURES)
    options = parser.parse_args()
    try:
        written = write(options.runs_dir, options.out)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    size = sum(path.stat().st_size for path in options.out.rglob("*.svg"))
    print(f"{short(options.out)}: {len(written)} pictures written, the others as they were, {size / 1e6:.1f} MB in all")


if __name__ == "__main__":
    main()
