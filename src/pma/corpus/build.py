"""Building a corpus folder: text of pinned sources in, tokens and evaluation items out."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from pma.config import DataConfig, hash_json
from pma.corpus import hub, items, sources
from pma.corpus.generated import Generated, generate
from pma.corpus.overlap import Overlap
from pma.corpus.text import END_OF_TEXT, Document, order_key
from pma.files import publish_folder, sha256_file, write_json

CORPUS_VERSION = 1  # raise it when a change here changes what is built
MAX_LENGTH = 4096  # tokens; the longest sequence any scale trains on
_BATCH = 1024  # documents encoded at once


def prepare(data: DictConfig, data_dir: Path) -> Path:
    """The corpus folder of a data config, built first if it is not there.

    Contents: tokenizer/ (AutoTokenizer), train.bin (little-endian uint16 or uint32 tokens, `<|endoftext|>` after each
    document), heldout/<domain>.jsonl, items/<axis>.jsonl, overlap.json, manifest.json. The same config gives the same
    bytes on every machine, whatever the number of cores.

    Args:
        data: a DataConfig.
        data_dir: archives are kept in downloads/, corpora in corpora/<name>-<hash of the config>/.

    Raises:
        ValueError: an impossible config, or an archive that is not the pinned one.
        ConnectionError: something has to be downloaded and cannot be.
    """
    config: DataConfig = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), data))
    _validate(config)
    identity = hash_json([CORPUS_VERSION, OmegaConf.to_container(OmegaConf.structured(config))])[:12]
    folder = Path(data_dir) / "corpora" / f"{config.name}-{identity}"
    if (folder / "manifest.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(
        folder.with_name(f".{folder.name}.lock")
    ):  # several runs of a sweep may ask at once: one builds, the rest wait
        if not (folder / "manifest.json").exists():
            with publish_folder(folder) as aside:
                _build(config, Path(data_dir), aside)
    return folder


def _validate(config: DataConfig) -> None:
    for index, source in enumerate(config.sources + config.benchmarks):
        if source.extract not in sources.EXTRACTORS:
            raise ValueError(
                f"data.sources[{index}].extract={source.extract}: choose one of {', '.join(sources.EXTRACTORS)}"
            )
    if not 0 < config.heldout_fraction < 1:
        raise ValueError(f"data.heldout_fraction={config.heldout_fraction}: give a fraction between 0 and 1")
    if config.vocab_size <= 256:
        raise ValueError(f"data.vocab_size={config.vocab_size}: give at least 257, the bytes and {END_OF_TEXT}")
    if not (config.sources or config.generated or config.hub):
        raise ValueError(f"data={config.name} has no sources, nothing generated and no hub data set")


def _build(config: DataConfig, data_dir: Path, folder: Path) -> None:
    with _stage("download and check archives"):
        archives = sources.fetch(config.sources + config.benchmarks, data_dir)
    with _stage("read, clean and split documents"):
        read = _read(config, archives)
    with _stage("remove duplicates"):
        train, heldout, duplicates = _deduplicate(read)
    with _stage("make evaluation items"):
        axes = _make_items(config, heldout, read.generated)
    with _stage("look for overlap"):
        train, overlap = _remove_overlap(config, train, axes, read)
    for documents in (train, *heldout.values()):
        documents.sort(key=lambda document: order_key(config.seed, document.text))
    with _stage("train the tokenizer"):
        tokenizer = train_tokenizer(train, config.vocab_size, config.tokenizer_bytes)
        _as_transformers(tokenizer).save_pretrained(folder / "tokenizer")
    with _stage("tokenise"):
        dtype = np.dtype("<u2" if tokenizer.get_vocab_size() <= 65536 else "<u4")
        tokens = _write_tokens(tokenizer, train, folder / "train.bin", dtype)
        heldout = {domain: _cut(documents, config.heldout_bytes) for domain, documents in heldout.items()}
        counts = {domain: _count(tokenizer, documents) for domain, documents in heldout.items()}
    for domain, documents in heldout.items():
        _write_jsonl(folder / "heldout" / f"{domain}.jsonl", [{"text": document.text} for document in documents])
    for axis, rows in axes.items():
        _write_jsonl(folder / "items" / f"{axis}.jsonl", rows)
    write_json(folder / "overlap.json", overlap)
    manifest = {
        "name": config.name,
        "domains": _domains(train, tokens, heldout, counts),
        "sources": [
            {"package": s.package, "version": s.version, "file": s.file, "sha256": s.sha256, "domain": s.domain}
            for s in config.sources + config.benchmarks
        ],
        "duplicates_removed": duplicates,
        "vocab_size": tokenizer.get_vocab_size(),
        "dtype": {2: "uint16", 4: "uint32"}[dtype.itemsize],
        "train_tokens": sum(tokens.values()),
        "bytes_per_token": sum(len(d.text.encode()) for d in train) / sum(tokens.values()),
        "train_sha256": sha256_file(folder / "train.bin"),
        "items": {
            axis: {"count": len(rows), "sha256": sha256_file(folder / "items" / f"{axis}.jsonl")}
            for axis, rows in axes.items()
        },
        "axes_without_items": [axis for axis in items.DOMAIN_OF_AXIS if axis not in axes],
        "corpus_version": CORPUS_VERSION,
        "versions": {name: version(name) for name in ("tokenizers", "transformers", "reasoning-gym", "datasets")},
    }
    write_json(folder / "manifest.json", manifest)
    print(f"corpus {config.name}: {manifest['train_tokens']:,} training tokens, {len(train):,} documents", flush=True)


@contextmanager
def _stage(name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    print(f"corpus: {name}: {time.perf_counter() - start:.1f} s", flush=True)


# ---- reading ---------------------------------------------------------------------------------------------------------


class _Read(NamedTuple):
    splits: list[sources.Split]  # of the packages and the hub
    generated: dict[str, Generated]  # domain -> text and questions
    benchmarks: dict[str, list[str]]  # benchmark -> text of each item


def _read(config: DataConfig, archives: list[Path]) -> _Read:
    with ProcessPoolExecutor() as pool:
        generated = {g.domain: pool.submit(generate, g, config.seed, config.heldout_bytes) for g in config.generated}
        splits: list[Future[sources.Split]] = [
            pool.submit(sources.extract, path, source, config.seed, config.heldout_fraction)
            for source, path in zip(config.sources, archives, strict=False)
        ]
        if config.hub:
            splits.append(pool.submit(hub.stream, config.hub, config.seed, config.heldout_fraction))
        benchmarks = {
            b.domain: [text for _, read in sources.EXTRACTORS[b.extract](path, b.members) for text in read()]
            for b, path in zip(config.benchmarks, archives[len(config.sources) :], strict=True)
        }
        done = [f.result() for f in tqdm(splits, "sources", disable=None, leave=False)]
        return _Read(done, {domain: f.result() for domain, f in generated.items()}, benchmarks)


def _deduplicate(read: _Read) -> tuple[list[Document], dict[str, list[Document]], dict[str, int]]:
    """Train documents, held-out documents by domain, and exact duplicates removed by domain.

    Held-out documents come first, so that no training document equals one of them.
    """
    parts = [*read.splits, *read.generated.values()]
    seen: set[bytes] = set()
    duplicates: dict[str, int] = defaultdict(int)

    def fresh(documents: list[Document]) -> Iterator[Document]:
        for document in documents:
            key = order_key(document.text)
            if key in seen:
                duplicates[document.domain] += 1
            else:
                seen.add(key)
                yield document

    heldout: dict[str, list[Document]] = defaultdict(list)
    for part in parts:
        for document in fresh(part.heldout):
            heldout[document.domain].append(document)
    train = [document for part in parts for document in fresh(part.train)]
    return train, dict(sorted(heldout.items())), dict(sorted(duplicates.items()))


# ---- items and overlap -----------------------------------------------------------------------------------------------


def _make_items(
    config: DataConfig, heldout: dict[str, list[Document]], generated: dict[str, Generated]
) -> dict[str, list[dict[str, Any]]]:
    axes = {}
    for axis, domain in items.DOMAIN_OF_AXIS.items():
        if domain in generated:
            axes[axis] = items.from_questions(generated[domain].questions, config.seed)
        elif domain in heldout:
            axes[axis] = items.from_heldout(axis, heldout[domain], config.axis_items, config.seed)
    return {axis: rows for axis, rows in axes.items() if rows}


def _remove_overlap(
    config: DataConfig, train: list[Document], axes: dict[str, list[dict[str, Any]]], read: _Read
) -> tuple[list[Document], dict[str, Any]]:
    """Training documents that share no 13-gram with an item, and the report."""
    generated = set(read.generated)
    texts = {
        f"items/{axis}": [row["context"] + row["choices"][row["answer"]] for row in rows]
        for axis, rows in axes.items()
        if items.DOMAIN_OF_AXIS[axis] not in generated
    }
    index = Overlap(texts | read.benchmarks)
    templates = Overlap(read.benchmarks)
    kept, dropped = [], defaultdict(int)
    for document in train:
        if document.domain in generated:
            templates.check(document.text)
            kept.append(document)
        elif index.check(document.text):
            dropped[document.domain] += 1
        else:
            kept.append(document)
    domains = sorted({document.domain for document in train} - generated)
    return kept, {
        "rule": "a training document is dropped when it shares a word 13-gram (lower-cased, letters and digits) with "
        "an item; `hit` counts the items that were found in documents since dropped",
        "sets": index.report(),
        "train_documents_dropped": {domain: dropped[domain] for domain in domains},
        "generated": {
            "rule": "all questions of a generator share its template, so a training question is dropped when it "
            "equals an evaluation question; its 13-grams shared with benchmarks are counted but not dropped",
            "questions_dropped": {domain: part.dropped for domain, part in read.generated.items()},
            "sets": templates.report(),
        },
    }


# ---- tokens ----------------------------------------------------------------------------------------------------------


def train_tokenizer(documents: list[Document], vocab_size: int, max_bytes: int) -> Tokenizer:
    """Byte-level BPE of the first `max_bytes` of `documents`; digits stay single, so that sums can be learnt."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((document.text for document in _cut(documents, max_bytes)), trainer)
    return tokenizer


def _as_transformers(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def _encode(tokenizer: Tokenizer, documents: list[Document]) -> Iterator[tuple[Document, list[int]]]:
    for start in range(0, len(documents), _BATCH):
        batch = documents[start : start + _BATCH]
        encodings = tokenizer.encode_batch_fast([document.text for document in batch], add_special_tokens=False)
        yield from ((document, encoding.ids) for document, encoding in zip(batch, encodings, strict=True))


def _write_tokens(tokenizer: Tokenizer, documents: list[Document], path: Path, dtype: np.dtype) -> dict[str, int]:
    """Write the documents in order, `<|endoftext|>` after each; tokens by domain."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    counts: dict[str, int] = defaultdict(int)
    with path.open("wb") as file:
        progress = tqdm(_encode(tokenizer, documents), "documents", len(documents), disable=None, leave=False)
        for document, ids in progress:
            np.array([*ids, end], dtype=dtype).tofile(file)
            counts[document.domain] += len(ids) + 1
    return dict(counts)


def _count(tokenizer: Tokenizer, documents: list[Document]) -> int:
    return sum(len(ids) for _, ids in _encode(tokenizer, documents))


def _cut(documents: list[Document], max_bytes: int) -> list[Document]:
    """The first documents that fit into `max_bytes`; the next one is cut at a line end."""
    taken, left = [], max_bytes
    for document in documents:
        raw = document.text.encode()
        if len(raw) > left:
            start = raw[:left].decode(errors="ignore").rpartition("\n")[0]
            return [*taken, document._replace(text=start)] if start else taken
        taken.append(document)
        left -= len(raw)
    return taken


def _domains(
    train: list[Document], tokens: dict[str, int], heldout: dict[str, list[Document]], heldout_tokens: dict[str, int]
) -> dict[str, dict[str, Any]]:
    by_domain: dict[str, list[Document]] = defaultdict(list)
    for document in train:
        by_domain[document.domain].append(document)

    def summary(documents: list[Document], count: int) -> dict[str, int]:
        return {
            "documents": len(documents),
            "bytes": sum(len(document.text.encode()) for document in documents),
            "tokens": count,
        }

    return {
        domain: {
            "train": summary(by_domain[domain], tokens.get(domain, 0)),
            "heldout": summary(heldout.get(domain, []), heldout_tokens.get(domain, 0)),
        }
        for domain in sorted(by_domain)
    }


def _write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
