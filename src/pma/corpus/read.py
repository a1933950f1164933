"""Read all text of a corpus: packages and generators in processes of their own, data sets of the hub as samples."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from pma.config import DataConfig, GeneratedConfig
from pma.corpus import hub
from pma.corpus.extract import EXTRACTORS, extract
from pma.corpus.generated import Generated, generate
from pma.corpus.split import Split
from pma.corpus.workers import workers


class Texts(NamedTuple):
    """Everything that was read, before duplicates and overlap are taken out."""

    splits: list[Split]  # of each package
    generated: dict[str, Generated]  # text and questions by domain
    benchmarks: dict[str, list[str]]  # text of each item by benchmark
    shards: list[int]  # number of shards of each data set of the hub
    samples: list[Split]  # of each data set of the hub; what is trained on comes from its shards


def read_all(config: DataConfig, archives: list[Path], processes: int) -> Texts:
    """Read packages and generate questions by `processes` workers, read benchmarks and samples of the hub here.

    Args:
        config: of the corpus.
        archives: of its packages, then of its benchmarks.

    Raises:
        ValueError: a generator has too few questions, or a data set of the hub no such text field.
        ConnectionError: the hub cannot be reached.
    """
    pairs = config.instruct
    with workers(max(1, min(processes, len(config.generated) + len(config.sources)))) as pool:
        generated: dict[str, Future[Generated]] = {
            g.domain: pool.submit(
                generate, g, config.seed, config.heldout_bytes, pairs.bytes.get(g.domain, 0), pairs.items
            )
            for g in config.generated
        }
        if pairs.unseen:
            unseen = GeneratedConfig(domain="ood", tasks=pairs.unseen, max_bytes=0)
            generated["ood"] = pool.submit(generate, unseen, config.seed, 0, 0, pairs.items)
        splits: list[Future[Split]] = [
            pool.submit(extract, path, source, config.seed, config.heldout_fraction)
            for source, path in zip(config.sources, archives, strict=False)
        ]
        benchmarks = {
            b.domain: [text for _, read in EXTRACTORS[b.extract](path, b.members) for text in read()]
            for b, path in zip(config.benchmarks, archives[len(config.sources) :], strict=True)
        }
        finished = [split.result() for split in tqdm(splits, "sources", disable=None, leave=False)]
        questions = {domain: part.result() for domain, part in generated.items()}
    counts = [hub.count_shards(source) for source in config.hub or ()]
    samples = [
        hub.sample(source, count, config.seed, config.heldout_fraction)
        for source, count in zip(config.hub or (), counts, strict=True)
    ]
    return Texts(finished, questions, benchmarks, counts, samples)
