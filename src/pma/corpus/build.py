"""Building a corpus folder: text of pinned sources in, tokens and evaluation items out."""

from __future__ import annotations

import json
import shutil
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

from pma.config import DataConfig, GeneratedConfig, hash_json
from pma.corpus import hub, instruct, items, shards, sources
from pma.corpus.clean import END_OF_TEXT, Document, order_key
from pma.corpus.generated import Generated, generate
from pma.corpus.instruct import Pair
from pma.corpus.mix import round_counts
from pma.corpus.overlap import Overlap
from pma.corpus.tokens import mixing_weights
from pma.device import cpu_threads
from pma.files import publish_folder, publish_made, sha256_file, write_json

CORPUS_VERSION = 4  # raise it when a change here changes what is built
MAX_LENGTH = 4096  # tokens; the longest sequence any scale trains on
HELDOUT_SHARES = 16  # one held-out document gives at most this part of heldout_bytes
_BATCH = 1024  # documents encoded at once


def prepare(data: DictConfig, data_dir: Path, processes: int = 0) -> Path:
    """The corpus folder of a data config, built first if it is not there.

    Contents: tokenizer/ (AutoTokenizer), train.bin (packages and generated text) and, where the config asks for them,
    hub/ (shards of the hub's data sets; see `pma.corpus.shards`), continued.bin and instruct.bin
    (little-endian uint16 or uint32 tokens, `<|endoftext|>` after each document), instruct.mask.bin (uint8 for each
    token, 1 where it is learnt), heldout/<domain>.jsonl, items/<suite>/<axis>.jsonl, overlap.json, manifest.json. No
    document is in two of them, but for copies that several shards or hub/ and other parts hold. The same config gives
    the same bytes on every machine, whatever the number of cores.

    Args:
        data: a DataConfig. Its weights are not part of what is built.
        data_dir: archives are kept in downloads/, corpora in corpora/<name>-<hash of the config>/, those with data sets
            of the hub in building/ until they are whole.
        processes: that tokenise shards; 0: the cores this process may run on.

    Raises:
        ValueError: an impossible config, or an archive that is not the pinned one.
        ConnectionError: something has to be downloaded and cannot be. What is done of the shards is kept.
    """
    config, folder = _named(data, data_dir)
    if (folder / "manifest.json").exists():
        return folder
    with _locked(folder):  # several runs of a sweep may ask at once: one builds, the rest wait
        if (folder / "manifest.json").exists():
            return folder
        if not config.hub:
            with publish_folder(folder) as aside:
                _build(config, Path(data_dir), aside)
            return folder
        building = _prepare_shards(config, Path(data_dir), folder)
        shards.write_missing(building, config, cpu_threads(processes))
        _publish(config, building, folder)
    return folder


def prepare_part(data: DictConfig, data_dir: Path, part: int, parts: int, processes: int = 0) -> Path | None:
    """Do part `part` of `parts` of the work of `prepare`: of the shards, every `parts`-th one.

    Calls for all parts may run at once, on machines that share `data_dir` on a disk with file locks.

    Returns:
        The corpus folder when no shard is missing any more, else None.

    Raises:
        ValueError, ConnectionError: as `prepare` does; and without data sets of the hub there are no parts.
    """
    config, folder = _named(data, data_dir)
    if not config.hub:
        raise ValueError(f"part={part}: data={config.name} has no data sets of the hub, so no parts; leave it out")
    if not 0 <= part < parts:
        raise ValueError(f"part={part}: give a number from 0 to parts - 1 = {parts - 1}")
    with _locked(folder):
        if (folder / "manifest.json").exists():
            return folder
        building = _prepare_shards(config, Path(data_dir), folder)
    shards.write_missing(building, config, cpu_threads(processes), part, parts)
    with _locked(folder):
        if not (folder / "manifest.json").exists():
            if shards.missing(building):
                return None
            _publish(config, building, folder)
    return folder


def _named(data: DictConfig, data_dir: Path) -> tuple[DataConfig, Path]:
    """The checked config and the corpus folder that is named after it."""
    config: DataConfig = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), data))
    _validate(config)
    content = OmegaConf.to_container(OmegaConf.structured(config))
    for part in (content, *(content["hub"] or ())):  # weights decide in which order tokens are read, not what they are
        del part["weight"]
    identity = hash_json([CORPUS_VERSION, content])[:12]
    return config, Path(data_dir) / "corpora" / f"{config.name}-{identity}"


def _locked(folder: Path) -> FileLock:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.with_name(f".{folder.name}.lock"))


def _prepare_shards(config: DataConfig, data_dir: Path, folder: Path) -> Path:
    """The folder that a corpus with shards comes into being in, holding all but these; made if it is not there."""
    building = data_dir / "building" / folder.name
    if not (building / "corpus").exists():  # it leaves first when the corpus is published
        with publish_folder(building) as aside:
            _build(config, data_dir, aside / "corpus")
    return building


def _publish(config: DataConfig, building: Path, folder: Path) -> None:
    """Say in manifest.json and overlap.json what the shards hold, and give the corpus its final name."""
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
        manifest |= {"bytes_per_token": _bytes_per_token(manifest["domains"]), "hub": hub_sources}
        write_json(corpus / "manifest.json", manifest)
    publish_made(corpus, folder)
    shutil.rmtree(building)


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
    generated = {g.domain for g in config.generated}
    for domain in config.instruct.bytes:
        if domain not in generated.union(instruct.DOMAINS):
            raise ValueError(
                f"data.instruct.bytes.{domain}: give a domain of data.generated, or {' or '.join(instruct.DOMAINS)}"
            )
    if not (config.sources or config.generated or config.hub):
        raise ValueError(f"data={config.name} has no sources, nothing generated and no hub data set")
    own = bool(config.sources or config.generated) and bool(config.hub)
    if own != (config.weight is not None):
        mend = "give that of packages and generated text" if own else "it goes with these and data sets of the hub"
        raise ValueError(f"data.weight={config.weight}: {mend}")
    for index, source in enumerate(config.hub or ()):
        for key in ("shards", "sample_bytes"):
            if getattr(source, key) < 1:
                raise ValueError(f"data.hub[{index}].{key}={getattr(source, key)}: give a number above 0")
    if config.hub:
        round_counts([weight for weight in mixing_weights(config) if weight is not None])


def _build(config: DataConfig, data_dir: Path, folder: Path) -> None:
    with _stage("download and check archives"):
        archives = sources.fetch(config.sources + config.benchmarks, data_dir)
    with _stage("read, clean and split documents"):
        read = _read(config, archives)
    with _stage("remove duplicates"):
        train, heldout, duplicates = _deduplicate(read)
    with _stage("make evaluation items"):
        axes = _make_items(config, heldout, read.generated)
    texts = _item_texts(axes, read)
    heldout_keys = [order_key(document.text).hex() for documents in heldout.values() for document in documents]
    with _stage("look for overlap"):
        train, overlap = _remove_overlap(train, texts, read)
    for documents in (train, *heldout.values()):
        documents.sort(key=lambda document: order_key(config.seed, document.text))
    train, continued, pairs = _reserve(config, train)
    pairs += [instruct.question_pair(question) for part in read.generated.values() for question in part.instruct]
    pairs.sort(key=lambda pair: order_key(config.seed, *pair))
    with _stage("train the tokenizer"):
        sampled = [document for sample in read.samples for document in sample.train]
        tokenizer = train_tokenizer([*_take(train, config.tokenizer_bytes), *sampled], config.vocab_size)
        _as_transformers(tokenizer).save_pretrained(folder / "tokenizer")
    with _stage("tokenise"):
        dtype = shards.token_dtype(tokenizer)
        tokens = {}
        if train:
            tokens["train"] = _write_tokens(tokenizer, train, folder / "train.bin", dtype)
        if continued:
            tokens["continued"] = _write_tokens(tokenizer, continued, folder / "continued.bin", dtype)
        if pairs:
            tokens["instruct"] = _write_pairs(tokenizer, pairs, folder / "instruct", dtype)
        heldout = {domain: _beginnings(documents, config.heldout_bytes) for domain, documents in heldout.items()}
        counts = {domain: _count(tokenizer, documents) for domain, documents in heldout.items() if documents}
    for domain, documents in heldout.items():
        _write_jsonl(folder / "heldout" / f"{domain}.jsonl", [{"text": document.text} for document in documents])
    paths = {axis: folder / "items" / f"{axis}.jsonl" for axis in axes}
    for axis, path in paths.items():
        _write_jsonl(path, axes[axis])
    write_json(folder / "overlap.json", overlap)
    domains = _domains(
        {
            "train": (train, tokens.get("train", {})),
            "continued": (continued, tokens.get("continued", {})),
            "heldout": ([document for documents in heldout.values() for document in documents], counts),
        }
    )
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
            part: {"tokens": sum(counts.values()), "sha256": sha256_file(folder / f"{part}.bin")}
            for part, counts in tokens.items()
        },
        "bytes_per_token": _bytes_per_token(domains),
        "instruct": {"pairs": len(pairs), **tokens.get("instruct", {})},
        "items": {axis: {"count": len(rows), "sha256": sha256_file(paths[axis])} for axis, rows in axes.items()},
        "axes_without_items": [axis for axis in items.DOMAIN_OF_AXIS if axis not in axes],
        "corpus_version": CORPUS_VERSION,
        "versions": {name: version(name) for name in ("tokenizers", "transformers", "reasoning-gym", "datasets")},
    }
    write_json(folder / "manifest.json", manifest)
    if config.hub:
        shards.Plan(read.shards, heldout_keys, texts).save(folder.parent)
    sizes = ", ".join(f"{part} {about['tokens']:,}" for part, about in manifest["parts"].items()) or "none yet"
    print(f"corpus {config.name}: tokens: {sizes}", flush=True)


@contextmanager
def _stage(name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    print(f"corpus: {name}: {time.perf_counter() - start:.1f} s", flush=True)


# ---- reading ---------------------------------------------------------------------------------------------------------


class _Read(NamedTuple):
    splits: list[sources.Split]  # of the packages
    generated: dict[str, Generated]  # domain -> text and questions
    benchmarks: dict[str, list[str]]  # benchmark -> text of each item
    shards: list[int]  # of each data set of the hub
    samples: list[sources.Split]  # of each of them; what is trained on comes from the shards


def _read(config: DataConfig, archives: list[Path]) -> _Read:
    with ProcessPoolExecutor() as pool:
        pairs = config.instruct
        unseen = GeneratedConfig(domain="ood", tasks=pairs.unseen, max_bytes=0)
        generated = {
            g.domain: pool.submit(
                generate, g, config.seed, config.heldout_bytes, pairs.bytes.get(g.domain, 0), pairs.items
            )
            for g in config.generated
        }
        if pairs.unseen:
            generated["ood"] = pool.submit(generate, unseen, config.seed, 0, 0, pairs.items)
        splits: list[Future[sources.Split]] = [
            pool.submit(sources.extract, path, source, config.seed, config.heldout_fraction)
            for source, path in zip(config.sources, archives, strict=False)
        ]
        benchmarks = {
            b.domain: [text for _, read in sources.EXTRACTORS[b.extract](path, b.members) for text in read()]
            for b, path in zip(config.benchmarks, archives[len(config.sources) :], strict=True)
        }
        done = [f.result() for f in tqdm(splits, "sources", disable=None, leave=False)]
        texts = {domain: f.result() for domain, f in generated.items()}
    counts = [hub.count_shards(source) for source in config.hub or ()]
    samples = [
        hub.sample(source, count, config.seed, config.heldout_fraction)
        for source, count in zip(config.hub or (), counts, strict=True)
    ]
    return _Read(done, texts, benchmarks, counts, samples)


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
    for part in [*parts, *read.samples]:
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
        proxy = axis.startswith("proxy/")
        if domain in generated:
            questions = generated[domain].items if proxy else generated[domain].instruct_items
            axes[axis] = items.from_questions(axis, questions, config.seed)
        elif domain in heldout:
            count = config.axis_items if proxy else config.instruct.items
            axes[axis] = items.from_heldout(axis, heldout[domain], count, config.seed)
    return {axis: rows for axis, rows in axes.items() if rows}


def _item_texts(axes: dict[str, list[dict[str, Any]]], read: _Read) -> dict[str, list[str]]:
    """Texts that training documents must not overlap with: benchmarks, and items that are not generated."""
    made = {
        f"items/{axis}": [row["context"] + row["choices"][row["answer"]] for row in rows]
        for axis, rows in axes.items()
        if items.DOMAIN_OF_AXIS[axis] not in read.generated
    }
    return made | read.benchmarks


def _remove_overlap(
    train: list[Document], texts: dict[str, list[str]], read: _Read
) -> tuple[list[Document], dict[str, Any]]:
    """Training documents that share no 13-gram with a text, and the report."""
    generated = set(read.generated)
    index = Overlap(texts)
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


# ---- parts -----------------------------------------------------------------------------------------------------------


def _reserve(config: DataConfig, train: list[Document]) -> tuple[list[Document], list[Document], list[Pair]]:
    """The documents of train.bin and of continued.bin, and the instruction pairs of documents in neither.

    Raises:
        ValueError: a domain has less text than was asked for.
    """
    continued = dict(config.continued)  # bytes still wanted
    wanted = {domain: size for domain, size in config.instruct.bytes.items() if domain in instruct.DOMAINS}
    kept: list[Document] = []
    shifted: list[Document] = []
    pairs: list[Pair] = []
    for document in train:
        domain = document.domain
        if continued.get(domain, 0) > 0:
            shifted.append(document)
            continued[domain] -= len(document.text.encode())
        elif wanted.get(domain, 0) > 0 and (found := instruct.pairs(document)):
            pairs += found
            wanted[domain] -= sum(len((pair.prompt + pair.completion).encode()) for pair in found)
        else:
            kept.append(document)
    for key, left in {"continued": continued, "instruct.bytes": wanted}.items():
        for domain, size in left.items():
            if size > 0:
                raise ValueError(
                    f"data.{key}.{domain}: the corpus has {size} bytes less than that; lower it, or raise max_bytes "
                    "of a source of the domain"
                )
    return kept, shifted, pairs


# ---- tokens ----------------------------------------------------------------------------------------------------------


def train_tokenizer(documents: list[Document], vocab_size: int) -> Tokenizer:
    """Byte-level BPE of `documents`; digits stay single, so that sums can be learnt."""
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
    tokenizer.train_from_iterator((document.text for document in documents), trainer)
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


def _write_pairs(tokenizer: Tokenizer, pairs: list[Pair], path: Path, dtype: np.dtype) -> dict[str, int]:
    """Write prompt, completion and `<|endoftext|>` of each pair to PATH.bin, and beside it to PATH.mask.bin what is
    learnt: completions and ends; tokens learnt and not learnt."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    prompts = tokenizer.encode_batch_fast([pair.prompt for pair in pairs], add_special_tokens=False)
    completions = tokenizer.encode_batch_fast([pair.completion for pair in pairs], add_special_tokens=False)
    learnt = given = 0
    with path.with_suffix(".bin").open("wb") as tokens, path.with_suffix(".mask.bin").open("wb") as mask:
        for prompt, completion in zip(prompts, completions, strict=True):
            np.array([*prompt.ids, *completion.ids, end], dtype=dtype).tofile(tokens)
            np.repeat(np.array([0, 1], np.uint8), [len(prompt.ids), len(completion.ids) + 1]).tofile(mask)
            given += len(prompt.ids)
            learnt += len(completion.ids) + 1
    return {"learnt": learnt, "not_learnt": given}


def _count(tokenizer: Tokenizer, documents: list[Document]) -> int:
    return sum(len(ids) for _, ids in _encode(tokenizer, documents))


def _take(documents: list[Document], max_bytes: int) -> list[Document]:
    """The first documents, at least `max_bytes` of them or all."""
    taken, size = [], 0
    for document in documents:
        if size >= max_bytes:
            break
        taken.append(document)
        size += len(document.text.encode())
    return taken


def _beginnings(documents: list[Document], max_bytes: int) -> list[Document]:
    """At most `max_bytes` of held-out text, at most a share of them from one document, cut between words: many
    documents tell more than a few whole ones."""
    taken, left = [], max_bytes
    for document in documents:
        limit = min(left, max(1, max_bytes // HELDOUT_SHARES))
        raw = document.text.encode()
        text = document.text if len(raw) <= limit else _before_a_blank(raw[:limit].decode(errors="ignore"))
        if text:
            taken.append(document._replace(text=text))
            left -= len(text.encode())
    return taken


def _before_a_blank(text: str) -> str:
    return text[: max(text.rfind(" "), text.rfind("\n"), 0)].rstrip()


def _domains(parts: dict[str, tuple[list[Document], dict[str, int]]]) -> dict[str, dict[str, dict[str, int]]]:
    """Documents, bytes and tokens by domain and part, from the documents and tokens by domain of each part."""
    domains: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)
    for part, (documents, tokens) in parts.items():
        for document in documents:
            summary = domains[document.domain].setdefault(part, {"documents": 0, "bytes": 0})
            summary["documents"] += 1
            summary["bytes"] += len(document.text.encode())
        for domain, count in tokens.items():
            domains[domain][part]["tokens"] = count
    return dict(sorted(domains.items()))


def _bytes_per_token(domains: dict[str, dict[str, dict[str, int]]]) -> float | None:
    train = [parts["train"] for parts in domains.values() if "train" in parts]
    return sum(t["bytes"] for t in train) / sum(t["tokens"] for t in train) if train else None


def _write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
