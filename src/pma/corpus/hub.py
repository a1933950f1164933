"""Documents streamed from the Hugging Face hub, or from a local folder of its files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

from pma.config import HubConfig
from pma.corpus.sources import Split, Unit, split_units


def stream(hub: HubConfig, seed: int, heldout_fraction: float) -> Split:
    """Stream the first documents of a hub data set and split them; see `split_units`.

    Args:
        hub: what to stream; `path` may also be a local folder of parquet or JSON Lines files.
        seed: of the split.
        heldout_fraction: of the documents.

    Raises:
        ConnectionError: the hub, the data set or the revision cannot be reached.
        ValueError: the data set has no such text field.
    """
    try:
        with tempfile.TemporaryDirectory() as cache_dir:
            units = list(_units(hub, hub.max_bytes / (1 - heldout_fraction), cache_dir))
    except (OSError, ConnectionError) as error:  # what datasets and huggingface_hub raise without a network
        raise ConnectionError(
            f"cannot stream {hub.path} (revision {hub.revision}) from the Hugging Face hub: {error}. "
            "Check the network and the names, or use data that comes from packages: data=cpu or data=gpu."
        ) from error
    name = f"{hub.path}@{hub.revision}"
    return split_units(units, hub.domain, name, seed, heldout_fraction, hub.max_bytes)


def _units(hub: HubConfig, max_bytes: float, cache_dir: str) -> Iterator[Unit]:
    from datasets import load_dataset  # takes a second to import

    rows = load_dataset(
        hub.path,
        name=hub.name,
        split=hub.split,
        revision=hub.revision,
        streaming=True,
        cache_dir=cache_dir,
    )
    size = 0
    for number, row in enumerate(rows):
        if hub.text_field not in row:
            raise ValueError(f"data.hub.text_field={hub.text_field}: {hub.path} has the fields {', '.join(row)}")
        text = row[hub.text_field]
        yield str(number), lambda text=text: [text]
        size += len(text.encode())
        if size >= max_bytes:
            return
