"""Refuse impossible data configs before anything is downloaded."""

from __future__ import annotations

from pma.config import DataConfig
from pma.corpus import instruct
from pma.corpus.clean import END_OF_TEXT
from pma.corpus.extract import EXTRACTORS
from pma.corpus.mix import mixing_weights, round_counts


def check(config: DataConfig) -> None:
    """Refuse a data config that no corpus can be built from.

    Raises:
        ValueError: naming the key, its value and the mend.
    """
    for index, source in enumerate(config.sources + config.benchmarks):
        if source.extract not in EXTRACTORS:
            raise ValueError(f"data.sources[{index}].extract={source.extract}: choose one of {', '.join(EXTRACTORS)}")
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
    for index, data_set in enumerate(config.hub or ()):
        for key in ("shards", "sample_bytes"):
            if getattr(data_set, key) < 1:
                raise ValueError(f"data.hub[{index}].{key}={getattr(data_set, key)}: give a number above 0")
    if config.hub:
        round_counts([weight for weight in mixing_weights(config) or () if weight is not None])
