"""README, CONTRIBUTING and docs as tests read them: their links, their anchors, their blocks of code.

for block in blocks(path):
    if block.runs: ...          # it stands after a line <!-- run -->
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = "<!-- run -->"
_MARKDOWN = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Block:
    """A block of code: its language (empty for an indented one), its text, and whether the tests run it."""

    language: str
    text: str
    runs: bool

    @property
    def lines(self) -> list[str]:
        """Lines of a shell, continued ones joined, without comments."""
        joined = self.text.replace("\\\n", " ").splitlines()
        return [re.sub(r"(^|\s)#.*", "", line).strip() for line in joined]


def blocks(path: Path) -> list[Block]:
    """The blocks of code of a document."""
    found, before = [], ""
    for token in _MARKDOWN.parse(path.read_text(encoding="utf-8")):
        if token.type in ("fence", "code_block"):
            found.append(Block(token.info.strip(), token.content, before.strip() == RUN))
        before = token.content if token.type == "html_block" else ""
    return found


def links(path: Path) -> Iterator[str]:
    """Where links and pictures of a document lead."""
    for token in _MARKDOWN.parse(path.read_text(encoding="utf-8")):
        for part in [token, *(token.children or [])]:
            for name in ("href", "src"):
                if name in part.attrs:
                    yield str(part.attrs[name])
            if part.type in ("html_inline", "html_block"):
                yield from re.findall(r'(?:href|src|srcset)="([^"]+)"', part.content)


def anchors(path: Path) -> set[str]:
    """What a link can name in a document: its headings as GitHub writes them, and ids of its own."""
    text = path.read_text(encoding="utf-8")
    found = set(re.findall(r'<a id="([^"]+)"', text))
    tokens = _MARKDOWN.parse(text)
    for token, inline in zip(tokens, tokens[1:], strict=False):
        if token.type == "heading_open":
            heading = re.sub(r"<[^>]+>|`", "", inline.content).strip().lower()
            found.add(re.sub(r"[^\w\- ]", "", heading).replace(" ", "-"))
    return found
