"""The hash of the rules that was fixed before data: written once, published with the records, compared ever after.

analysis/claims.sha256 holds it, and beyond.sha256 that of beyond.yaml (python analysis/claims.py --freeze);
runs/SCALE/published/manifest.json copies both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pma.files import revision, write_json, write_text
from pma.json_files import MANIFEST, read_manifest
from verdicts.rules import BEYOND, CLAIMS, Rules, rules_hash

_KEYS = {CLAIMS: "rules", BEYOND: "beyond"}  # of the published manifest
_SHOWN = 12  # digits of a hash in a sentence


def freeze(rules: Path = CLAIMS) -> str:
    """Write the hash of the rules beside them, before any confirmatory seed is trained; return it."""
    digest = rules_hash(rules)
    write_text(rules.with_suffix(".sha256"), digest + "\n")
    return digest


def frozen_hash(rules: Path = CLAIMS) -> str:
    """The hash of these rules that was fixed before data.

    Raises:
        ValueError: when it was never written, or the file holds something else.
    """
    path = rules.with_suffix(".sha256")
    text = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(
            f"{path}: no hash of the rules there; before data, python analysis/claims.py --freeze writes it"
        )
    return text


def write_published_manifest(folder: Path, seeds: Sequence[int]) -> None:
    """Write what the published records of a scale were made by: the frozen rules, the seeds, the code.

    Raises:
        ValueError: when no rules were frozen.
    """
    hashes = {key: frozen_hash(rules) for rules, key in _KEYS.items()}
    write_json(folder / MANIFEST, {**hashes, "seeds": list(seeds), "revision": revision()})


def published_hash(published: Path, rules: Path = CLAIMS) -> str:
    """The hash of these rules that published records were made under; empty where none is recorded."""
    try:
        return str(read_manifest(published).get(_KEYS.get(rules, "rules"), ""))
    except ValueError:
        return ""


def change_text(rules: Rules, published: Path) -> str:
    """What a reader must know of rules that changed after data; empty where none did.

    Args:
        rules: as they are now.
        published: the folder of published records, whose manifest holds the hash that was fixed before data.
    """
    if rules.changed_after_data:
        return f"Changed after data: {' '.join(_stopped(text) for text in rules.changed_after_data)}"
    before, records = published_hash(published, rules.path), f"the published records of scale {published.parent.name}"
    if not before:
        return f"Nothing says by which rules {records} were made; python analysis/publish.py records that."
    if before != rules.sha256:
        return (
            f"The rules (sha256 {rules.sha256[:_SHOWN]}) are not those that {records} were made under "
            f"({before[:_SHOWN]}): say under changed_after_data in {rules.path.name} what changed, or take the change "
            "back."
        )
    return ""


def _stopped(text: str) -> str:
    return text.removesuffix(".") + "."
