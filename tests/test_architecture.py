"""docs/architecture.md names every file of the code, with the sentence that stands at its top."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("src/pma", "analysis")


def first_sentences() -> list[str]:
    """A line for each file, by folder: its name, and the first paragraph of its docstring."""
    lines = []
    for folder in FOLDERS:
        lines.append(f"{folder}/")
        for path in sorted((ROOT / folder).rglob("*.py")):
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            assert docstring, f"{path}: say at its top what its job is"
            sentence = " ".join(docstring.split("\n\n")[0].split())
            lines.append(f"    {path.relative_to(ROOT / folder).as_posix():<26} {sentence}")
    return lines


def test_every_file_stands_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = [line[4:] for line in text.partition("## Every file")[2].splitlines() if line.startswith("    ")]
    assert listed == first_sentences()
