"""Documents that hold numbers from records: which blocks stand between markers in each, written and compared.

A block stands between <!-- NAME:begin --> and <!-- NAME:end -->; all else in a document is written by hand.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

from choosing import choosing_blocks
from records import Study
from trials import trials_table
from verdicts import document, readme
from verdicts.decide import Family

Blocks = Mapping[str, str]


def contents(runs_dir: Path, decided: Sequence[Family]) -> dict[str, Blocks]:
    """The blocks of every document, by its path below the root.

    Args:
        runs_dir: with the published records.
        decided: the paper's claims, and what it left open. Numbers that are no verdicts are of the first scale.

    Raises:
        ValueError: when records that a block needs are not there.
    """
    claims, beyond = decided
    studies = {scale: Study(runs_dir / scale / "published") for scale in claims.decided}
    default = next(iter(studies.values()))
    return {
        "README.md": readme.blocks(claims, studies),
        "docs/claims.md": {"claims": document.claims_sections(claims, studies)},
        "docs/beyond.md": {
            "questions": readme.claims_block(beyond),
            "beyond": document.claims_sections(beyond, studies),
            "trials": trials_table(),
        },
        "docs/choosing.md": choosing_blocks(default, next(iter(claims.decided.values()))),
        "docs/deviations.md": {"largest": readme.largest_deviations(default)},
    }


def written(root: Path, blocks: Mapping[str, Blocks]) -> dict[Path, str]:
    """The text of every document with new blocks between its markers.

    Raises:
        ValueError: when a document or a marker is missing.
    """
    texts = {}
    for name, of_document in blocks.items():
        path = root / name
        if not path.is_file():
            raise ValueError(f"{path}: not there; it holds the blocks {', '.join(of_document)}")
        text = path.read_text(encoding="utf-8")
        for block, content in of_document.items():
            before, _, after = _split(path, text, block)
            text = f"{before}{content}\n{after}"
        texts[path] = text
    return texts


def differences(root: Path, blocks: Mapping[str, Blocks]) -> list[str]:
    """Lines between markers that differ from what the records give.

    Raises:
        ValueError: when a document or a marker is missing.
    """
    drift = []
    for path, text in written(root, blocks).items():
        old = path.read_text(encoding="utf-8").splitlines()
        lines = difflib.unified_diff(old, text.splitlines(), lineterm="", n=0)
        drift += [f"{path}: {line}" for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")]
    return drift


def _split(path: Path, text: str, name: str) -> tuple[str, str, str]:
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found_begin, rest = text.partition(begin + "\n")
    block, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"{path}: no lines {begin} and {end}; put them where the block belongs")
    return before + begin + "\n", block, end + after
