"""The content hash of weights: the same for any file format, and for one shard or many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xxhash

from pma.merge.formats import SIZES, Source, TensorInfo, iterate_spans


def content_hash(tensors: Mapping[str, TensorInfo], digests: Mapping[str, Sequence[bytes]]) -> str:
    """Return XXH3-128 over the names, types and shapes of tensors and the XXH3-128 of each of their spans."""
    total = xxhash.xxh3_128()
    for name in sorted(tensors):
        info = tensors[name]
        total.update(f"{name} {info.dtype} {list(info.shape)}".encode())
        for digest in digests[name]:
            total.update(digest)
    return f"xxh3-128:{total.hexdigest()}"


def source_hash(source: Source) -> str:
    """Content hash of an open source."""
    digests: dict[str, list[bytes]] = {}
    for name, info in source.tensors.items():
        digests[name] = []
        for start, count in iterate_spans(info):
            raw = np.empty(count * SIZES[info.dtype], np.uint8)
            if count:
                source.read(name, start, raw)
            digests[name].append(xxhash.xxh3_128_digest(raw))
    return content_hash(source.tensors, digests)
