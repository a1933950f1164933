"""Merging checkpoints: agreement and policies, one pass, provenance, publication."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from pma import __version__
from pma.device import cpu_cores
from pma.files import MANIFEST, hash_files, publish_folder, read_manifest, write_json
from pma.merge import diagnose, ranks, write
from pma.merge.formats import SIZES, Source, TensorInfo, open_source
from pma.merge.stream import NUMPY, Pass, Seen, Sum
from pma.merge.weights import equivalent_decay

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {"float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16", "newest": None}
# Routers' load-balancing biases, which training steers by counting tokens and not by gradients: DeepSeek-V3 and its kin
# in transformers; Megatron and torchtitan.
_ROUTER_BIAS = re.compile(r"(^|\.)(e_score_correction_bias|expert_bias(_E)?)$")
_HEAD = "lm_head.weight"


@dataclass(frozen=True)
class Policy:
    """What is done where averaging could be wrong; recorded with every merge.

    Always: a tensor that one snapshot lacks, or has in another shape, is refused; floating types may differ (each is
    read in its own); equal integers are copied; an lm_head.weight that only some folders hold is left out where every
    config says that it is tied to the embeddings.

    Attributes:
        integers: integer and boolean tensors that differ: refuse | newest.
        router_bias: load-balancing biases of routers: average | newest.
        suspicious: NaN, infinity, or a snapshot far from the others: refuse | warn.
    """

    integers: str = "refuse"
    router_bias: str = "average"
    suspicious: str = "refuse"

    def check(self) -> None:
        """Raises ValueError for an unknown choice."""
        choices = {
            "integers": ("refuse", "newest"),
            "router_bias": ("average", "newest"),
            "suspicious": ("refuse", "warn"),
        }
        for key, allowed in choices.items():
            if getattr(self, key) not in allowed:
                raise ValueError(f"{key}={getattr(self, key)}: choose {' or '.join(allowed)}")


@dataclass(frozen=True)
class Merge:
    """One merge to make: a weight for each source, oldest first, and where it goes.

    Attributes:
        recipe: what the weights came from, for the provenance.
    """

    weights: tuple[float, ...]
    output: Path
    recipe: Mapping[str, Any]


@dataclass(frozen=True)
class Options:
    """How merges are computed and stored.

    Attributes:
        dtype: storage type of floating tensors: float32 | bfloat16 | float16 | float64 | newest (as in the newest).
        accumulate: float32 | float64.
        format: safetensors | dcp.
        shard_size: bytes of a safetensors file at most, unless one tensor is larger.
        assets: folder whose config and tokenizer go with the merge; null: the newest source's.
        prefix: take only tensors whose names begin with it, and take it off.
        memory: bytes for blocks in flight.
        threads: 0: the cores this process may use.
        diagnose: whether distances and variances go into diagnostics.json.
    """

    dtype: str = "float32"
    accumulate: str = "float32"
    format: str = "safetensors"
    shard_size: int = 5_000_000_000
    assets: Path | None = None
    prefix: str | None = None
    memory: int = 2**23
    threads: int = 0
    diagnose: bool = True

    def check(self) -> None:
        """Raises ValueError for an impossible choice."""
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype}: choose one of {', '.join(DTYPES)}")
        if self.accumulate not in ("float32", "float64"):
            raise ValueError(f"accumulate={self.accumulate}: choose float32 or float64")
        if self.format not in ("safetensors", "dcp"):
            raise ValueError(f"format={self.format}: choose safetensors or dcp")
        if self.assets is not None and not self.assets.is_dir():
            raise ValueError(f"assets={self.assets}: no such folder; give one with config.json and tokenizer")
        if self.shard_size < 1 or self.memory < 1:
            raise ValueError("shard_size and memory: give a positive number of bytes")

    def cores(self) -> int:
        """Threads to run."""
        return self.threads or cpu_cores()


@contextmanager
def opened(names: Sequence[str | Path], prefix: str | None = None) -> Iterator[list[Source]]:
    """Sources by name, checked to be one architecture.

    Raises:
        ValueError: naming the source and the first tensor that does not fit.
    """
    if not names:
        raise ValueError("no sources; give at least one checkpoint, oldest first")
    with ExitStack() as stack:
        sources = []
        for name in names:
            sources.append(open_source(name, prefix))
            stack.callback(sources[-1].close)
        _drop_tied_heads(sources)
        for source in sources[1:]:
            _require_same(sources[0], source)
        yield sources


def _drop_tied_heads(sources: Sequence[Source]) -> None:
    holders = [source for source in sources if _HEAD in source.tensors]
    if not holders or len(holders) == len(sources):
        return
    for source in sources:
        try:
            tied = json.loads((source.folder / "config.json").read_text(encoding="utf-8"))["tie_word_embeddings"]
        except (OSError, ValueError, KeyError):
            return
        if not tied:
            return
    for source in holders:
        del source.tensors[_HEAD]


def _require_same(first: Source, other: Source) -> None:
    for name in sorted(first.tensors.keys() ^ other.tensors.keys()):
        there, missing = (first, other) if name in first.tensors else (other, first)
        raise ValueError(
            f"{missing.name}: tensor {name} is missing, {there.name} has it; merge one architecture only, saved by the "
            f"same code (prefix=... names the part of a checkpoint that is the model)"
        )
    for name, info in first.tensors.items():
        its = other.tensors[name]
        if its.shape != info.shape:
            raise ValueError(
                f"{other.name}: tensor {name} has shape {its.shape}, in {first.name} {info.shape}; merge one "
                f"architecture"
            )
        if its.floating != info.floating or (not info.floating and its.dtype != info.dtype):
            raise ValueError(
                f"{other.name}: tensor {name} is {its.dtype}, in {first.name} {info.dtype}; an integer is no float: "
                f"save both alike"
            )


def average(folders: Sequence[str | Path], weights: Sequence[float]) -> dict[str, Tensor]:
    """sum_i weights[i] * model_i for every floating tensor, in fp32 from the oldest on; integers are copied.

    The whole merge in memory, for scoring; nothing is written. With the default `Policy`, and the contents of sources
    checked against their manifests.

    Returns:
        The tensors by name, floating ones in fp32.

    Raises:
        ValueError: for folders that cannot be averaged.
    """
    return averages(folders, [weights])[0].tensors


@dataclass(frozen=True)
class InMemory:
    """A merge that was not written: its tensors by name, floating ones in fp32, and their content hash."""

    tensors: dict[str, Tensor]
    content: str


def averages(folders: Sequence[str | Path], weights: Sequence[Sequence[float]]) -> list[InMemory]:
    """`average` for several lists of weights, reading every snapshot once, with the content hash of each."""
    import torch

    with opened(folders) as sources:
        sums = [Sum(_checked(w, len(sources)), "F32") for w in weights]
        infos = sources[-1].tensors
        arrays = [{k: np.empty(i.count, NUMPY[one.stored(i)]) for k, i in infos.items()} for one in sums]

        def keep(index: int, name: str, start: int, values: np.ndarray) -> None:
            arrays[index][name][start : start + len(values)] = values

        work = Pass(sources, sums, keep, threads=torch.get_num_threads(), diagnose=False)
        seen = work.summary(work.run())
        _judge(seen, sources, Policy())
    booleans = {k for k, i in infos.items() if i.dtype == "BOOL"}
    made = [
        {k: torch.from_numpy(v.view(bool) if k in booleans else v).view(infos[k].shape) for k, v in one.items()}
        for one in arrays
    ]
    return [InMemory(tensors, content) for tensors, content in zip(made, seen.sum_hashes, strict=True)]


def _checked(weights: Sequence[float], n: int) -> tuple[float, ...]:
    if len(weights) != n:
        raise ValueError(f"weights: {len(weights)} given for {n} snapshots; give one for each, oldest first")
    return tuple(float(weight) for weight in weights)


@dataclass(frozen=True)
class Plan:
    """What a set of merges will read, write and need, known from the headers alone; all in bytes."""

    tensors: int
    parameters: int
    read: int
    written: int
    free: int
    memory: int
    seconds: float

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"{self.tensors:,} tensors, {self.parameters:,} parameters; reads {_bytes(self.read)}, writes "
            f"{_bytes(self.written)} ({_bytes(self.free)} free); {_bytes(self.memory)} for blocks; about "
            f"{self.seconds:.1f} s where the disk keeps up"
        ]


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


# Seconds to start, and bytes of input a second and core; for estimates only: ten bf16 snapshots of 533 MB from the page
# cache took 2.8 s on two cores (benchmarks/merge.py --cases sma), of which 1.3 s to start.
_START, _RATE = 1.3, 1.8e9


def plan(sources: Sequence[Source], merges: Sequence[Merge], options: Options) -> Plan:
    """The plan of some merges, after checking all that headers can tell.

    Raises:
        ValueError: for impossible options, weights or outputs, or a disk too full.
    """
    options.check()
    targets = [merge.output for merge in merges]
    for target in targets:
        if targets.count(target) > 1:
            raise ValueError(f"output={target}: named twice; give every merge a folder of its own")
        if target.exists():
            raise ValueError(f"output={target}: exists already; give another folder or remove it")
    sums = [Sum(_checked(merge.weights, len(sources)), DTYPES[options.dtype]) for merge in merges]
    infos = sources[-1].tensors
    read = sum(info.nbytes for source in sources for info in source.tensors.values())
    each = sum(info.count * SIZES[sums[0].stored(info)] for info in infos.values())
    copies = 2 if options.format == "dcp" else 1  # written as safetensors first
    work = Pass(sources, sums, lambda *a: None, memory=options.memory, threads=options.cores())
    place = merges[0].output.absolute().parent
    while not place.exists():
        place = place.parent
    found = Plan(
        tensors=len(infos),
        parameters=sum(info.count for info in infos.values()),
        read=read,
        written=each * (len(merges) + copies - 1),
        free=shutil.disk_usage(place).free,
        memory=work.memory,
        seconds=_START + read / _RATE / options.cores(),
    )
    if found.written > found.free:
        raise ValueError(
            f"{place}: the merges take {_bytes(found.written)} and {_bytes(found.free)} are free there; make room, or "
            f"store them smaller with dtype=bfloat16"
        )
    return found


def merge_all(
    names: Sequence[str | Path], merges: Sequence[Merge], options: Options | None = None, policy: Policy | None = None
) -> list[Path]:
    """Make any number of merges of the same sources in one pass, and publish each as a model folder.

    Under torchrun the processes share the spans of the tensors; the bytes are the same for any number of them.

    Args:
        names: checkpoint folders or hub revisions, oldest first; see pma.merge.formats.

    Returns:
        The folders, each with manifest.json: every source with its content hash and weight, the recipe, the
        learning-rate decay it is equivalent to, the policy, and the content hash of the output.

    Raises:
        ValueError: for sources that cannot be averaged, options that do not fit, snapshots that the policy refuses, or
            a source that is not what its manifest says. Nothing is left under any output's name then.
        OSError: when the disk is full.
    """
    options, policy = options or Options(), policy or Policy()
    policy.check()
    with opened(names, options.prefix) as sources, ranks.group() as group:
        plan(sources, merges, options)
        infos = sources[-1].tensors
        dtype = DTYPES[options.dtype]
        sums = [Sum(_checked(merge.weights, len(sources)), dtype) for merge in merges]
        router = frozenset(name for name in infos if _ROUTER_BIAS.search(name))
        with ExitStack() as stack:
            asides = None
            if group.first:
                asides = [stack.enter_context(publish_folder(merge.output)) for merge in merges]
            asides = group.share(asides)
            stored = [{k: TensorInfo(one.stored(i), i.shape) for k, i in infos.items()} for one in sums]
            writers = _open_writers(group, asides, stored, options, stack)
            work = Pass(
                sources,
                sums,
                lambda index, name, start, values: writers[index].write(name, start, values),
                newest_only=router if policy.router_bias == "newest" else frozenset(),
                accumulate=options.accumulate,
                memory=options.memory,
                threads=options.cores(),
                processes=True,
                diagnose=options.diagnose,
            )
            results = group.gather(_with_progress(work, group))
            if group.first:
                seen = work.summary(results)
                warnings = _judge(seen, sources, policy)
                _finish(asides, sources, merges, seen, options, policy, sorted(router), warnings)
            group.wait()
    return [merge.output for merge in merges]


def _open_writers(
    group: ranks.Group,
    asides: Sequence[Path],
    stored: Sequence[Mapping[str, TensorInfo]],
    options: Options,
    stack: ExitStack,
) -> list[write.SafetensorsWriter]:
    def open_all(create: bool) -> list[write.SafetensorsWriter]:
        made = []
        for aside, infos in zip(asides, stored, strict=True):
            made.append(write.SafetensorsWriter(aside, infos, options.shard_size, create))
            stack.callback(made[-1].close)
        return made

    writers = open_all(True) if group.first else None
    group.wait()
    return writers if writers is not None else open_all(False)


def _with_progress(work: Pass, group: ranks.Group) -> dict:
    total = sum(i.nbytes for source in work.sources for i in source.tensors.values()) // group.size
    hidden = not (group.first and sys.stderr.isatty())
    with tqdm(total=total, unit="B", unit_scale=True, desc="merge", disable=hidden) as bar:
        return work.run(slice(group.rank, None, group.size), bar.update)


def _judge(seen: Seen, sources: Sequence[Source], policy: Policy) -> list[str]:
    """Refuse what the policy refuses; the rest as warnings."""
    for source, found in zip(sources, seen.hashes, strict=True):
        manifest = read_manifest(source.folder) if (source.folder / MANIFEST).exists() else {}
        if manifest.get("content", found) != found:
            raise ValueError(
                f"{source.name}: not what its {MANIFEST} says ({found} instead of {manifest['content']}): damaged, or "
                f"changed since; put the files back, or remove {MANIFEST} if you changed them on purpose"
            )
    for i, name in seen.unequal:
        if policy.integers == "refuse":
            raise ValueError(
                f"{sources[i].name}: integer tensor {name} differs from {sources[-1].name}; integers cannot be "
                f"averaged (integers=newest takes the newest's)"
            )
    said = [f"{sources[i].name}: tensor {name} holds NaN or infinity" for i, name in seen.not_finite]
    if seen.grams and not said:
        for i, times in diagnose.outliers(sum(seen.grams.values())).items():
            said.append(
                f"{sources[i].name}: {times:.1f} times as far from the mean of the others as these usually are; a "
                f"spike, or another run"
            )
    if said and policy.suspicious == "refuse":
        raise ValueError(f"{said[0]}; leave that snapshot out, or merge all the same with suspicious=warn")
    for line in said:
        print(f"warning: {line}", file=sys.stderr, flush=True)
    return said


def _finish(
    asides: Sequence[Path],
    sources: Sequence[Source],
    merges: Sequence[Merge],
    seen: Seen,
    options: Options,
    policy: Policy,
    router: Sequence[str],
    warnings: Sequence[str],
) -> None:
    paths = write.assets(sources[-1], options.assets)
    newest = read_manifest(sources[-1].folder) if (sources[-1].folder / MANIFEST).exists() else {}
    found = diagnose.diagnostics(seen.grams, seen.counts) if seen.grams else None
    types = sorted({info.dtype for source in sources for info in source.tensors.values() if info.floating})
    for aside, merge, content in zip(asides, merges, seen.sum_hashes, strict=True):
        if options.format == "dcp":
            write.to_dcp(aside)
        write.copy_assets(paths, aside, None if options.dtype == "newest" else options.dtype)
        total = sum(merge.weights)
        provenance = {
            "recipe": dict(merge.recipe),
            "sources": [
                {"folder": source.name, "content": one, "weight": weight}
                for source, one, weight in zip(sources, seen.hashes, merge.weights, strict=True)
                if weight
            ],
            "sum_of_weights": total,
            "equivalent_decay": equivalent_decay([w for w in merge.weights if w]) if total else None,
            "policy": {**asdict(policy), "router_biases": list(router), "source_types": types},
            "accumulated_in": options.accumulate,
            "dtype": options.dtype,
            "format": options.format,
            "warnings": list(warnings),
            "version": __version__,
        }
        if "corpus" in newest:
            provenance["corpus"] = newest["corpus"]
        if found is not None:
            write_json(aside / "diagnostics.json", found)
        write_json(aside / MANIFEST, {**provenance, "content": content, "files": hash_files(aside, but=write.WEIGHTS)})
