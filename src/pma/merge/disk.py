"""Merges published as model folders: room checked, blocks written, provenance added, whole or not at all."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pma import __version__
from pma.files import hash_files, publish_folder, write_json
from pma.json_files import MANIFEST, read_manifest
from pma.merge import diagnose, ranks, write
from pma.merge.check import open_sources
from pma.merge.content import source_hash
from pma.merge.options import Merge, Options, Part, Policy
from pma.merge.patch import Patch
from pma.merge.plan import Plan, plan
from pma.merge.resume import TrainerCheckpoint
from pma.merge.summary import Seen
from pma.merge.weights import equivalent_decay


@dataclass
class _Disk:
    """A file system that merges are written to."""

    place: Path  # an output's nearest folder that is there
    free: int  # bytes
    merges: int = 0


def _device(place: Path) -> int:
    return place.stat().st_dev


def _disks(merges: Sequence[Merge]) -> list[_Disk]:
    disks: dict[int, _Disk] = {}
    for merge in merges:
        place = merge.output.absolute().parent
        while not place.exists():
            place = place.parent
        disk = disks.setdefault(_device(place), _Disk(place, shutil.disk_usage(place).free))
        disk.merges += 1
    return list(disks.values())


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


Kind = write.ModelFolder | TrainerCheckpoint


@contextmanager
def _kind(prepared: Plan, merges: Sequence[Merge]) -> Iterator[Kind]:
    """Choose what merges are written as: model folders, or checkpoints of their trainer.

    Raises:
        ValueError: when the newest source is no checkpoint to train on from.
    """
    kind = TrainerCheckpoint(prepared, merges) if prepared.options.resumable else write.ModelFolder(prepared)
    try:
        yield kind
    finally:
        kind.close()


def check_outputs(prepared: Plan, kind: Kind, merges: Sequence[Merge]) -> list[str]:
    """Check that every output is new and has room; return what the merges read, write and need, for people.

    Raises:
        ValueError: naming the output, or the disk that is too full.
    """
    outputs = [merge.output for merge in merges]
    for output in outputs:
        if outputs.count(output) > 1:
            raise ValueError(f"output={output}: named twice; give every merge a folder of its own")
        if output.exists():
            raise ValueError(f"output={output}: exists already; give another folder or remove it")
    infos = prepared.stored().values()
    size, more = kind.sizes()
    rooms = []
    for disk in _disks(merges):
        written = size * disk.merges + more
        if written > disk.free:
            raise ValueError(
                f"{disk.place}: the merges take {_bytes(written)} and {_bytes(disk.free)} are free there; make room, "
                f"or store them smaller with dtype=bfloat16"
            )
        rooms.append(f"writes {_bytes(written)} below {disk.place} ({_bytes(disk.free)} free)")
    return [
        f"{len(infos):,} tensors, {sum(info.count for info in infos):,} parameters, stored as "
        f"{prepared.dtype() or 'in the newest source'}; reads "
        f"{_bytes(prepared.work.input_bytes)}, {', '.join(rooms)}; {_bytes(prepared.work.memory)} for blocks; about "
        f"{prepared.seconds():.1f} s where the disk keeps up"
    ]


def preview(
    names: Sequence[str | Path], merges: Sequence[Merge], options: Options, policy: Policy | None = None
) -> list[str]:
    """Check all that `merge_all` checks before it reads weights; return the plan for people.

    Raises:
        ValueError: as `merge_all`.
    """
    with open_sources(names, options) as sources:
        prepared = plan(sources, [merge.weights for merge in merges], options, policy or Policy())
        with _kind(prepared, merges) as kind:
            return check_outputs(prepared, kind, merges)


def merge_all(
    names: Sequence[str | Path],
    merges: Sequence[Merge],
    options: Options | None = None,
    policy: Policy | None = None,
    parts: Sequence[Part] | None = None,
) -> list[Path]:
    """Make any number of merges of the same sources in one pass, and publish each as a model folder.

    Under torchrun the processes share the spans of the tensors; the bytes are the same for any number of them.

    Args:
        names: checkpoint folders or hub revisions, oldest first; see pma.merge.formats.
        parts: which tensors of each source are the model; null: the same of all, as in `options`.

    Returns:
        The folders, each with manifest.json: every source with its content hash and weight, the recipe, the
        learning-rate decay it is equivalent to, the policy, and the content hash of the output.

    Raises:
        ValueError: for sources that cannot be averaged, options or weights that do not fit, an output that exists or
            that another process is writing, snapshots that the policy refuses, a sum that its storage type cannot
            hold, or a source that is not what its manifest says. Nothing is left under any output's name then.
        OSError: when the disk is full.
    """
    options, policy = options or Options(), policy or Policy()
    with open_sources(names, options, parts) as sources, ranks.group() as group, ExitStack() as stack:
        prepared = plan(sources, [merge.weights for merge in merges], options, policy, processes=True)
        kind = stack.enter_context(_kind(prepared, merges))
        check_outputs(prepared, kind, merges)
        asides = None
        if group.first:
            asides = [stack.enter_context(publish_folder(merge.output, replace=False)) for merge in merges]
        asides = group.share(asides)
        writers = _open_writers(group, asides, kind, stack)
        outputs = [f"output={merge.output}" for merge in merges]
        with _progress_bar(prepared, group) as update:
            result = prepared.run(
                lambda index, name, start, values: writers[index].write(name, start, values),
                outputs,
                group,
                update,
            )
        kind.average_beside(writers, outputs, group)
        if result is not None:
            _finish(asides, writers, merges, prepared, kind, *result)
        group.wait()
    for merge in merges if group.first else []:
        kind.published(merge.output)
    return [merge.output for merge in merges]


def _open_writers(
    group: ranks.Group, asides: Sequence[Path], kind: Kind, stack: ExitStack
) -> list[write.SafetensorsWriter | Patch]:
    def open_all(create: bool) -> list[write.SafetensorsWriter | Patch]:
        writers: list[write.SafetensorsWriter | Patch] = []
        for aside in asides:
            writers.append(kind.writer(aside, create))
            stack.callback(writers[-1].close)
        return writers

    writers = open_all(True) if group.first else None
    group.wait()
    return writers if writers is not None else open_all(False)


@contextmanager
def _progress_bar(prepared: Plan, group: ranks.Group) -> Iterator[Callable[[int], Any]]:
    """Yield a function that takes bytes read; it draws a bar where a person looks on."""
    if not (group.first and sys.stderr.isatty()):
        yield lambda read: None
        return
    from tqdm import tqdm

    with tqdm(total=prepared.work.input_bytes // group.size, unit="B", unit_scale=True, desc="merge") as bar:
        yield bar.update


def _finish(
    asides: Sequence[Path],
    writers: Sequence[write.SafetensorsWriter | Patch],
    merges: Sequence[Merge],
    prepared: Plan,
    kind: Kind,
    seen: Seen,
    warnings: Sequence[str],
) -> None:
    """Put beside the weights of each merge what goes with them."""
    diagnosed = prepared.options.diagnose and seen.grams
    diagnostics = diagnose.diagnostics(seen.grams, seen.counts) if diagnosed else None
    for aside, writer, merge, content in zip(asides, writers, merges, seen.sum_hashes, strict=True):
        more = kind.finish(aside, writer)
        if diagnostics is not None:
            write_json(aside / "diagnostics.json", diagnostics)
        manifest = _provenance(merge, prepared, seen, warnings) | {"format": kind.format} | more
        manifest |= {"content": content, "files": hash_files(aside, but=kind.weight_files)}
        kind.describe(aside, manifest)
        write_json(aside / MANIFEST, manifest)


def _provenance(merge: Merge, prepared: Plan, seen: Seen, warnings: Sequence[str]) -> dict[str, Any]:
    options, sources = prepared.options, prepared.sources
    newest = read_manifest(sources[-1].folder) if (sources[-1].folder / MANIFEST).exists() else {}
    # A stacked adapter is mostly the place that it leaves to the others: the hash is that of the adapter itself.
    contents = [source_hash(s.inner) if s.copied else content for s, content in zip(sources, seen.hashes, strict=True)]
    types = sorted({info.dtype for source in sources for info in source.tensors.values() if info.floating})
    total = sum(merge.weights)
    provenance = {
        "recipe": dict(merge.recipe),
        "sources": [
            {"folder": source.name, "content": content, "weight": weight}
            for source, content, weight in zip(sources, contents, merge.weights, strict=True)
            if weight
        ],
        "sum_of_weights": total,
        "equivalent_decay": equivalent_decay([w for w in merge.weights if w]) if total else None,
        "policy": {**asdict(prepared.policy), "router_biases": list(prepared.router_biases), "source_types": types},
        "accumulated_in": options.accumulate,
        "dtype": prepared.dtype() or options.dtype,
        "warnings": list(warnings),
        "version": __version__,
    }
    part = {key: value for key in ("prefix", "state", "key") if (value := getattr(options, key)) is not None}
    if sources[-1].adapter is not None:
        part["lora"] = options.lora
    if sources[-1].dequantized:
        part["dequantized"] = True
    provenance |= part
    corpus = newest.get("corpus")
    return provenance | ({"corpus": corpus} if isinstance(corpus, str) else {})
