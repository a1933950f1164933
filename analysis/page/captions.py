"""Captions of the page: what several figures say alike is said once, ahead of them."""

from __future__ import annotations

import re
from collections.abc import Mapping

_END = re.compile(r"(?<=[.]) +(?=[A-Z±])")


def said_once(captions: Mapping[str, str]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The sentences that two or more captions share, each with the names of these, and every caption without them.

    Args:
        captions: by the name of their figure.
    """
    sentences = {name: list(dict.fromkeys(filter(None, _END.split(text)))) for name, text in captions.items()}
    said_by: dict[str, list[str]] = {}
    for name, of_figure in sentences.items():
        for sentence in of_figure:
            said_by.setdefault(sentence, []).append(name)
    common = {sentence: names for sentence, names in said_by.items() if len(names) > 1}
    return common, {name: " ".join(s for s in said if s not in common) for name, said in sentences.items()}
