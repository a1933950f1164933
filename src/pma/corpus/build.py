"""Build a corpus folder: text of pinned sources in, tokens and evaluation items out. Each stage has a file."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf
from tokenizers import Tokenizer

from pma.config import DataConfig, hash_json
from pma.corpus import instruct, shards
from pma.corpus.check import check
from pma.corpus.clean import order_key
from pma.corpus.fetch import fetch
from pma.corpus.items import DOMAIN_OF_AXIS, item_texts, make_items
from pma.corpus.overlap import remove_overlap
from pma.corpus.read import read_all
from pma.corpus.report import bytes_per_token, domain_table
from pma.corpus.split import beginnings, deduplicate, reserve, take
from pma.corpus.tokenizer import as_transformers, count_tokens, train_tokenizer, write_documents, write_pairs
from pma.device import cpu_threads
from pma.files import publish_folder, publish_made, sha256_file, write_json
from pma.words import quantity

_PARTS = {"train": "to train on", "continued": "for continued training", "instruct": "of instruction pairs"}
CORPUS_VERSION = 4  # raise it when a change here changes what is built


def prepare(data: DictConfig, data_dir: Path, processes: int = 0) -> Path:
    """The corpus folder of a data config; it is built if it is not there.

    Contents: tokenizer/ (AutoTokenizer), train.bin (packages and generated text) and, where the config asks for them,
    hub/ (shards of the hub's data sets; see `pma.corpus.shards`), continued.bin and instruct.bin
    (little-endian uint16 or uint32 tokens, `<|endoftext|>` after each document), instruct.mask.bin (uint8 for each
    token, 1 where it is learnt), heldout/<domain>.jsonl, items/<suite>/<axis>.jsonl, overlap.json, manifest.json. No
    document is in two of them, except for copies that several shards, or hub/ and another part, hold. The same config
    gives the same bytes on every machine, whatever the number of cores.

    Args:
        data: a DataConfig. Its weights are not part of what is built.
        data_dir: archives are kept in downloads/, corpora in corpora/<name>-<hash of the config>/, those with data sets
            of the hub in building/ until they are whole.
        processes: workers that read packages and tokenise shards; 0: the cores this process may run on.

    Raises:
        ValueError: an impossible config, or an archive that is not the pinned one.
        ConnectionError: something has to be downloaded and cannot be. Finished shards are kept.
    """
    config, folder = _checked(data, data_dir)
    cores = cpu_threads(processes)
    if (folder / "manifest.json").exists():
        return folder
    with _locked(folder):  # several runs of a sweep may ask at once: one builds, the rest wait
        if (folder / "manifest.json").exists():
            return folder
        if not config.hub:
            with publish_folder(folder) as aside:
                _build(config, Path(data_dir), aside, cores)
            return folder
        building = _prepare_shards(config, Path(data_dir), folder, cores)
        shards.write_missing(building, config, cores)
        _publish(config, building, folder)
    return folder


def prepare_part(data: DictConfig, data_dir: Path, part: int, parts: int, processes: int = 0) -> Path | None:
    """Do part `part` of `parts` of the work of `prepare`: of the shards, every `parts`-th one.

    Calls for all parts may run at once, on machines that share `data_dir` on a disk with file locks.

    Returns:
        The corpus folder when no shard is missing any more, else None.

    Raises:
        ValueError, ConnectionError: as `prepare`; ValueError also without data sets of the hub, as there are no parts.
    """
    config, folder = _checked(data, data_dir)
    if not config.hub:
        raise ValueError(f"part={part}: data={config.name} has no data sets of the hub, so no parts; leave it out")
    if not 0 <= part < parts:
        raise ValueError(f"part={part}: give a number from 0 to parts - 1 = {parts - 1}")
    cores = cpu_threads(processes)
    with _locked(folder):
        if (folder / "manifest.json").exists():
            return folder
        building = _prepare_shards(config, Path(data_dir), folder, cores)
    shards.write_missing(building, config, cores, part, parts)
    with _locked(folder):
        if not (folder / "manifest.json").exists():
            if shards.missing(building):
                return None
            _publish(config, building, folder)
    return folder


def _checked(data: DictConfig, data_dir: Path) -> tuple[DataConfig, Path]:
    """The checked config and the corpus folder that is named after it."""
    config: DataConfig = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), data))
    check(config)
    content = OmegaConf.to_container(OmegaConf.structured(config))
    for part in (content, *(content["hub"] or ())):  # weights decide in which order tokens are read, not what they are
        del part["weight"]
    identity = hash_json([CORPUS_VERSION, content])[:12]
    return config, Path(data_dir) / "corpora" / f"{config.name}-{identity}"


def _locked(folder: Path) -> FileLock:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.with_name(f".{folder.name}.lock"))


def _prepare_shards(config: DataConfig, data_dir: Path, folder: Path, processes: int) -> Path:
    """The folder in which a corpus with shards is built, with all but the shards in it; made if it is not there."""
    building = data_dir / "building" / folder.name
    if not (building / "corpus").exists():  # it leaves first when the corpus is published
        with publish_folder(building) as aside:
            _build(config, data_dir, aside / "corpus", processes)
    return building


def _publish(config: DataConfig, building: Path, folder: Path) -> None:
    """Write what the shards hold into manifest.json and overlap.json, and give the corpus its final name."""
    corpus = building / "corpus"
    hub_sources, overlap = shards.summary(building, config)
    manifest = json.loads((corpus / "manifest.json").read_text(encoding="utf-8"))
    report = json.loads((corpus / "overlap.json").read_text(encoding="utf-8"))
    write_json(corpus / "overlap.json", report | {"hub": overlap})
    if "hub" not in manifest:  # else a build was killed right here
        for source in hub_sources:
            train = manifest["domains"].setdefault(source["domain"], {}).setdefault("train", {})
            for key in ("documents", "bytes", "tokens"):
                train[key] = train.get(key, 0) + source[key]
        manifest |= {"bytes_per_token": bytes_per_token(manifest["domains"]), "hub": hub_sources}
        write_json(corpus / "manifest.json", manifest)
    publish_made(corpus, folder)
    shutil.rmtree(building)


def _build(config: DataConfig, data_dir: Path, folder: Path, processes: int) -> None:
    """Put everything but shards into `folder`; with data sets of the hub, plan.json for them beside it."""
    print(f"corpus {config.name} is not there yet; it is built once:", flush=True)
    with _stage("download and check archives"):
        archives = fetch(config.sources + config.benchmarks, data_dir)
    with _stage("read, clean and split documents"):
        read = read_all(config, archives, processes)
    with _stage("remove duplicates"):
        train, heldout, duplicates = deduplicate([*read.splits, *read.generated.values()], read.samples)
    with _stage("make evaluation items"):
        axes = make_items(config, heldout, read.generated)
    texts = item_texts(axes, read.generated, read.benchmarks)
    heldout_keys = [order_key(document.text).hex() for documents in heldout.values() for document in documents]
    with _stage("look for overlap"):
        train, overlap = remove_overlap(train, texts, read.generated, read.benchmarks)
    for documents in (train, *heldout.values()):
        documents.sort(key=lambda document: order_key(config.seed, document.text))
    train, continued, pairs = reserve(config, train)
    pairs += [instruct.question_pair(question) for part in read.generated.values() for question in part.instruct]
    pairs.sort(key=lambda pair: order_key(config.seed, *pair))
    with _stage("train the tokenizer"):
        sampled = [document for sample in read.samples for document in sample.train]
        tokenizer = train_tokenizer([*take(train, config.tokenizer_bytes), *sampled], config.vocab_size)
        as_transformers(tokenizer).save_pretrained(folder / "tokenizer")
    with _stage("tokenise"):
        dtype = shards.token_dtype(tokenizer)
        tokens = {}
        if train:
            tokens["train"] = write_documents(tokenizer, train, folder / "train.bin", dtype)
        if continued:
            tokens["continued"] = write_documents(tokenizer, continued, folder / "continued.bin", dtype)
        if pairs:
            tokens["instruct"] = write_pairs(tokenizer, pairs, folder / "instruct", dtype)
        heldout = {domain: beginnings(documents, config.heldout_bytes) for domain, documents in heldout.items()}
        counts = {domain: count_tokens(tokenizer, documents) for domain, documents in heldout.items() if documents}
    for domain, documents in heldout.items():
        _write_jsonl(folder / "heldout" / f"{domain}.jsonl", [{"text": document.text} for document in documents])
    for axis, rows in axes.items():
        _write_jsonl(_items_path(folder, axis), rows)
    write_json(folder / "overlap.json", overlap)
    domains = domain_table(
        {
            "train": (train, tokens.get("train", {})),
            "continued": (continued, tokens.get("continued", {})),
            "heldout": ([document for documents in heldout.values() for document in documents], counts),
        }
    )
    _write_manifest(config, folder, tokenizer, dtype, domains, duplicates, tokens, len(pairs), axes)
    if config.hub:
        shards.ShardPlan(read.shards, heldout_keys, texts).save(folder.parent)
    sizes = ", ".join(f"{quantity(sum(counts.values()))} {_PARTS[part]}" for part, counts in tokens.items())
    print(f"  done: {f'{sizes} (tokens)' if sizes else 'no tokens yet, they come in shards'}", flush=True)


def _write_manifest(
    config: DataConfig,
    folder: Path,
    tokenizer: Tokenizer,
    dtype: np.dtype,
    domains: dict[str, dict[str, dict[str, int]]],
    duplicates: dict[str, int],
    tokens: dict[str, dict[str, int]],
    pairs: int,
    axes: dict[str, list[dict[str, Any]]],
) -> None:
    """manifest.json of a folder that holds all of its other files.

    Args:
        domains: of `domain_table`.
        duplicates: documents removed, by domain.
        tokens: of each part its tokens by domain; of instruct those learnt and not learnt.
        pairs: instruction pairs.
        axes: evaluation items by axis.
    """
    manifest = {
        "name": config.name,
        "domains": domains,
        "sources": [
            {"package": s.package, "version": s.version, "file": s.file, "sha256": s.sha256, "domain": s.domain}
            for s in config.sources + config.benchmarks
        ],
        "duplicates_removed": duplicates,
        "vocab_size": tokenizer.get_vocab_size(),
        "dtype": {2: "uint16", 4: "uint32"}[dtype.itemsize],
        "parts": {
            part: {
                "tokens": sum(counts.values()),
                "sha256": sha256_file(folder / f"{part}.bin"),
                **({"mask_sha256": sha256_file(folder / f"{part}.mask.bin")} if part == "instruct" else {}),
            }
            for part, counts in tokens.items()
        },
        "bytes_per_token": bytes_per_token(domains),
        "instruct": {"pairs": pairs, **tokens.get("instruct", {})},
        "items": {
            axis: {"count": len(rows), "sha256": sha256_file(_items_path(folder, axis))} for axis, rows in axes.items()
        },
        "axes_without_items": [axis for axis in DOMAIN_OF_AXIS if axis not in axes],
        "corpus_version": CORPUS_VERSION,
        "versions": {name: version(name) for name in ("tokenizers", "transformers", "reasoning-gym", "datasets")},
    }
    write_json(folder / "manifest.json", manifest)


def _items_path(folder: Path, axis: str) -> Path:
    return folder / "items" / f"{axis}.jsonl"


@contextmanager
def _stage(name: str) -> Iterator[None]:
    start = time.perf_counter()
    print(f"  {name} ...", end="", flush=True)
    try:
        yield
    except BaseException:
        print(flush=True)
        raise
    print(f" {time.perf_counter() - start:.1f} s", flush=True)


def _write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
