"""Text out of archives: cleaned, cut, and compared with benchmarks."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pma.corpus.archives import members
from pma.corpus.clean import clean, pieces
from pma.corpus.extract import EXTRACTORS
from pma.corpus.overlap import Overlap


def test_overlap_finds_a_13_gram_whatever_its_case_and_punctuation(benchmark_text: str) -> None:
    index = Overlap({"set": [benchmark_text, "too short"]})
    words = benchmark_text.split()
    assert index.check("before " + " - ".join(words[2:15]).upper() + " after")
    assert not index.check(" ".join([*words[:12], "other", *words[13:]]))
    assert not index.check("")
    assert index.report() == {"set": {"items": 2, "under_13_words": 1, "hit": 1}}


def test_clean() -> None:
    assert clean("a\r\nb \t\n\n\n\n\n\nc\x00\x1b<|endoftext|>" + "d" * 40) == "a\nb\n\n\nc" + "d" * 40
    assert clean("too short") == ""


@given(st.lists(st.text("ab", min_size=1, max_size=30), min_size=1, max_size=30), st.integers(10, 60))
def test_pieces_keep_every_character_within_the_limit(paragraphs: list[str], limit: int) -> None:
    cut = list(pieces("\n\n".join(paragraphs), limit))
    assert "".join(cut).replace("\n", "") == "".join(paragraphs)
    assert all(len(piece) <= max(limit, 30) for piece in cut)


def test_python_is_cut_before_definitions(write_zip, tmp_path: Path) -> None:
    body = "    work = step\n" * 190
    text = "# Copyright: somebody\n" + "\n\n".join(f"@decorator\ndef function_{n}():\n{body}" for n in range(6))
    table = "VALUES = [\n" + "    1.5, 2.5, 3.5,\n" * 200 + "]\n"
    write_zip(tmp_path / "code.zip", {"a.py": text, "table.py": table, "b.txt": "not Python"})
    units = {name: list(read()) for name, read in EXTRACTORS["python"](tmp_path / "code.zip", None)}
    assert list(units) == ["a.py", "table.py"] and units["table.py"] == []
    assert len(units["a.py"]) == 3 and all(piece.startswith("@decorator\ndef ") for piece in units["a.py"])
    assert list(members(tmp_path / "code.zip", "*.txt")) == ["b.txt"]
