"""Tokenise the hub's data sets: every shard alone, by any process of any machine, and never twice.

A corpus with such data sets is built in a folder of its own, which outlives a build that was killed:

    plan.json           what every shard needs: shards a data set, what is held out, texts of the items
    corpus/             what becomes the corpus: tokenizer, items, held-out text, and
    corpus/hub/D/S.bin  tokens of shard S of data set D, little-endian, `<|endoftext|>` after each document
    corpus/hub/D/S.idx  little-endian uint64 a document: where it ends, in tokens from the shard's beginning
    done/D/S.json       what the shard holds; written last, so that a shard with it is whole
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock
from tokenizers import Tokenizer
from tqdm import tqdm

from pma.config import DataConfig, HubConfig
from pma.corpus import hub
from pma.corpus.clean import END_OF_TEXT, order_key
from pma.corpus.overlap import Overlap
from pma.corpus.workers import workers
from pma.files import publish_file, write_bytes, write_json

_BATCH = 4_000_000  # characters encoded at once
_COUNTED = ("documents", "bytes", "tokens")  # kept; the other counts are of documents left out


def token_dtype(tokenizer: Tokenizer) -> np.dtype:
    """Type that the tokens of a vocabulary are stored in: little-endian uint16 or uint32."""
    return np.dtype("<u2" if tokenizer.get_vocab_size() <= 65536 else "<u4")


@dataclass
class ShardPlan:
    """What every shard of a corpus needs, as plan.json."""

    shards: list[int]  # of each data set
    heldout: list[str]  # hashes of held-out documents of other sources, hex
    items: dict[str, list[str]]  # texts of evaluation items and benchmarks, by set

    def save(self, folder: Path) -> None:
        """Write plan.json."""
        write_json(folder / "plan.json", asdict(self))

    @classmethod
    def load(cls, folder: Path) -> ShardPlan:
        """Read plan.json."""
        return cls(**json.loads((folder / "plan.json").read_text(encoding="utf-8")))

    def names(self) -> list[tuple[int, int]]:
        """Data set and number of every shard."""
        return [(source, shard) for source, count in enumerate(self.shards) for shard in range(count)]


def _stem(source: int, shard: int) -> str:
    return f"{source}/{shard:05d}"


def _record(folder: Path, source: int, shard: int) -> Path:
    return folder / "done" / f"{_stem(source, shard)}.json"


def missing(folder: Path, part: int = 0, parts: int = 1) -> list[tuple[int, int]]:
    """Shards, of every `parts`-th one from `part` on, that are not done yet."""
    return [name for name in ShardPlan.load(folder).names()[part::parts] if not _record(folder, *name).exists()]


def write_missing(folder: Path, config: DataConfig, processes: int, part: int = 0, parts: int = 1) -> None:
    """Tokenise the shards that are not done yet, of every `parts`-th one from `part` on.

    A process makes a shard in bounded memory: a batch of documents, and 16 bytes of hash (with what Python adds to
    them) for each document of the shard. When a shard fails, those under way are finished first.

    Raises:
        ConnectionError, ValueError: as `pma.corpus.hub.documents`; ValueError also when a process was killed.
    """
    left = missing(folder, part, parts)
    if not left:
        return
    with workers(min(processes, len(left)), _start, folder, config) as pool:
        total = len(ShardPlan.load(folder).names()[part::parts])
        every = 0.5 if sys.stderr.isatty() else 60.0  # seconds: a log file is not a screen
        with tqdm(desc="shards", total=total, initial=total - len(left), unit="shard", mininterval=every) as progress:
            try:
                size = 0
                for done in as_completed([pool.submit(_write, *name) for name in left]):
                    size += done.result()
                    seconds = progress.format_dict["elapsed"] + 1e-9
                    progress.set_postfix_str(f"{size / 1e9:.2f} GB of text, {size / 1e6 / seconds:.1f} MB/s", False)
                    progress.update()
            except BrokenProcessPool:
                raise ValueError(
                    f"a process that tokenises was killed, perhaps for memory: give fewer than processes={processes} "
                    "and run the same command again; finished shards are kept"
                ) from None
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


class _Tools(NamedTuple):
    folder: Path
    config: DataConfig
    plan: ShardPlan
    tokenizer: Tokenizer
    heldout: frozenset[bytes]
    overlap: Overlap


_tools: _Tools  # of a worker process


def _start(folder: Path, config: DataConfig) -> None:
    """Make the tools of a worker process."""
    global _tools
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # as many processes as cores already
    plan = ShardPlan.load(folder)
    tokenizer = Tokenizer.from_file(str(folder / "corpus" / "tokenizer" / "tokenizer.json"))
    heldout = frozenset(map(bytes.fromhex, plan.heldout))
    _tools = _Tools(folder, config, plan, tokenizer, heldout, Overlap(plan.items))


def _write(source: int, shard: int) -> int:
    """Make a shard, unless another process has; returns the UTF-8 bytes of text written."""
    folder, record = _tools.folder, _record(_tools.folder, source, shard)
    record.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(record.with_suffix(".lock")):
        if record.exists() or not (folder / "corpus").exists():  # done, or all done and published meanwhile
            return 0
        path = folder / "corpus" / "hub" / f"{_stem(source, shard)}.bin"
        for partial in path.parent.glob(f".{path.stem}.*"):  # left by a process that was killed
            partial.unlink()
        assert _tools.config.hub is not None
        config = _tools.config.hub[source]
        counts: dict[str, int] = defaultdict(int)
        _tools.overlap.hit = {name: set() for name in _tools.plan.items}
        texts = _kept(hub.documents(config, shard, _tools.plan.shards[source]), counts, config, source)
        digest = _write_tokens(texts, path, counts)
        hit = {name: sorted(numbers) for name, numbers in _tools.overlap.hit.items()}
        write_json(record, {**counts, "sha256": digest, "hit": hit})
        return counts["bytes"]


def _kept(texts: Iterable[str], counts: dict[str, int], config: HubConfig, source: int) -> Iterator[str]:
    """Documents to train on, up to the shard's part of max_bytes; `counts` gets how many of each kind were left out."""
    seed, fraction, shards = _tools.config.seed, _tools.config.heldout_fraction, _tools.plan.shards[source]
    counts.update(documents=0, bytes=0, tokens=0, heldout=0, duplicates=0, overlapping=0)
    seen: set[bytes] = set()
    for text in texts:
        if config.max_bytes is not None and counts["bytes"] * shards >= config.max_bytes:
            return
        key = order_key(text)
        if key in seen:
            counts["duplicates"] += 1
            continue
        seen.add(key)
        if key in _tools.heldout or hub.is_heldout(text, seed, fraction):
            counts["heldout"] += 1
        elif _tools.overlap.check(text):
            counts["overlapping"] += 1
        else:
            counts["documents"] += 1
            counts["bytes"] += len(text.encode())
            yield text


def _write_tokens(texts: Iterator[str], path: Path, counts: dict[str, int]) -> str:
    """Write tokens to `path`, and where documents end to the .idx beside it; returns the SHA-256 of the tokens, hex."""
    end, dtype = _tools.tokenizer.token_to_id(END_OF_TEXT), token_dtype(_tools.tokenizer)
    digest, ends = hashlib.sha256(), [np.zeros(0, "<u8")]
    with publish_file(path) as file:
        for batch in _batches(texts):
            ids = [[*e.ids, end] for e in _tools.tokenizer.encode_batch_fast(batch, add_special_tokens=False)]
            data = np.concatenate([np.array(document, dtype) for document in ids]).tobytes()
            file.write(data)
            digest.update(data)
            ends.append(counts["tokens"] + np.cumsum([len(document) for document in ids], dtype="<u8"))
            counts["tokens"] = int(ends[-1][-1])
    write_bytes(path.with_suffix(".idx"), np.concatenate(ends).astype("<u8").tobytes())
    return digest.hexdigest()


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def summary(folder: Path, config: DataConfig) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Sum up the finished shards: what each data set holds, for manifest.json, and the overlap, for overlap.json."""
    plan = ShardPlan.load(folder)
    sources, overlap = [], Overlap(plan.items)
    dropped: dict[str, int] = defaultdict(int)
    for source, (data_set, count) in enumerate(zip(config.hub or (), plan.shards, strict=True)):
        totals: dict[str, int] = defaultdict(int)
        shards = []
        for shard in range(count):
            record = json.loads(_record(folder, source, shard).read_text(encoding="utf-8"))
            for name, numbers in record.pop("hit").items():
                overlap.hit[name].update(numbers)
            file = f"hub/{_stem(source, shard)}.bin"
            shards.append({"file": file, **{key: record[key] for key in ("tokens", "documents", "sha256")}})
            for key in record.keys() - {"sha256"}:
                totals[key] += record[key]
        dropped[data_set.domain] += totals["overlapping"]
        identity = {
            key: getattr(data_set, key) for key in ("path", "name", "split", "revision", "text_field", "domain")
        }
        kept = {key: totals[key] for key in _COUNTED}
        left_out = {key: totals[key] for key in sorted(totals.keys() - kept.keys())}
        sources.append({**identity, **kept, "left_out": left_out, "shards": shards})
    return sources, {"sets": overlap.report(), "documents_dropped": dict(dropped)}
