"""Documents streamed from the Hugging Face hub, or from a local folder of its files, in a fixed number of shards.

`datasets` deals the files of a data set out to shards, in order. Where there are fewer files than shards, parquet files
are dealt out by row groups; of other formats there are as many shards as files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pma.config import HubConfig
from pma.corpus.clean import Document, clean, order_key
from pma.corpus.split import Split

if TYPE_CHECKING:
    from datasets import IterableDataset

_SAMPLED = 16  # shards a sample is taken of, spread evenly: the first ones alone can be of one time or one site


def is_heldout(text: str, seed: int, fraction: float) -> bool:
    """Whether a document is held out: decided by its own text, so that every shard decides alike without the others."""
    return int.from_bytes(order_key(seed, "heldout", text)[:8], "big") < fraction * 2**64


def count_shards(hub: HubConfig) -> int:
    """Shards of a hub data set: `hub.shards`, or as many as its files can be dealt out to.

    Raises:
        ConnectionError: the hub, the data set or the revision cannot be reached.
    """
    with _opened(hub) as rows:
        return min(hub.shards, rows.num_shards)


def documents(hub: HubConfig, shard: int, shards: int) -> Iterator[str]:
    """Cleaned documents of one of the `shards` shards of a hub data set, in its order.

    Raises:
        ConnectionError: the hub, the data set or the revision cannot be reached.
        ValueError: the data set has no such text field.
    """
    with _opened(hub) as rows:
        for row in rows.shard(shards, shard):
            if hub.text_field not in row:
                raise ValueError(f"data.hub.text_field={hub.text_field}: {hub.path} has the fields {', '.join(row)}")
            if text := clean(row[hub.text_field] or ""):
                yield text


def sample(hub: HubConfig, shards: int, seed: int, heldout_fraction: float) -> Split:
    """The first documents of some shards, `hub.sample_bytes` UTF-8 bytes in all, without duplicates; see `documents`.

    Held-out documents come on top.

    Raises:
        ValueError: none of them is held out.
    """
    taken = sorted({number * shards // _SAMPLED for number in range(_SAMPLED)})
    split, seen = Split([], []), set()
    for shard in taken:
        size = 0
        for text in documents(hub, shard, shards):
            if size >= hub.sample_bytes / len(taken):
                break
            document = Document(hub.domain, f"{hub.path}@{hub.revision}:{shard}", text)
            if text in seen:
                continue
            seen.add(text)
            if is_heldout(text, seed, heldout_fraction):
                split.heldout.append(document)
            else:
                split.train.append(document)
                size += len(text.encode())
    if not split.heldout:
        raise ValueError(
            f"data.hub: no document of the sample of {hub.path} is held out; raise its sample_bytes={hub.sample_bytes} "
            f"or data.heldout_fraction={heldout_fraction}"
        )
    return split


@contextmanager
def _opened(hub: HubConfig) -> Iterator[IterableDataset]:
    from datasets import load_dataset  # takes a second to import

    try:
        with tempfile.TemporaryDirectory() as cache_dir:
            rows = load_dataset(
                hub.path,
                name=hub.name,
                split=hub.split,
                revision=hub.revision,
                streaming=True,
                cache_dir=cache_dir,
            )
            yield rows if rows.num_shards >= hub.shards else rows.reshard()
    except OSError as error:  # what datasets and huggingface_hub raise without a network
        raise ConnectionError(
            f"cannot stream {hub.path} (revision {hub.revision}) from the Hugging Face hub: {error}. "
            "Check the network and the names, then run the same command again: finished shards are kept. Data that "
            "comes from packages: data=cpu or data=gpu."
        ) from error
