"""Build a corpus, or a part of its shards, and print what it holds.

python -m pma.corpus data=paper
python -m pma.corpus -m data=paper 'part=range(16)' parts=16 hydra/launcher=slurm hydra.launcher.gpus_per_node=0
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig

from pma import cli
from pma.config import CONF_DIR, DataConfig
from pma.json_files import read_manifest
from pma.words import print_next


@dataclass
class CorpusJob:
    """Everything `python -m pma.corpus` reads."""

    data: DataConfig = field(default_factory=DataConfig)
    data_dir: str = "data"
    part: int | None = None  # every parts-th shard of the hub's data sets, from this one on; null: the whole corpus
    parts: int = 1
    processes: int = 0  # that read and tokenise; 0: the cores this job may use. Does not change the bits


def _show(folder: Path, data: DictConfig) -> None:
    manifest = read_manifest(folder, "domains", "parts")
    print(f"{'domain':12} {'part':10} {'documents':>14} {'bytes':>20} {'tokens':>20}")
    for domain, parts in manifest["domains"].items():
        for part, counts in parts.items():
            print(f"{domain:12} {part:10} {counts['documents']:14,} {counts['bytes']:20,} {counts['tokens']:20,}")
    if "hub" in manifest:
        _show_mix(manifest, data)
    print(f"the corpus: {folder}")
    group = "scale" if (CONF_DIR / "scale" / f"{data.name}.yaml").is_file() else "data"
    print_next(f"python -m pma.train {group}={data.name}")


def _show_mix(manifest: dict, data: DictConfig) -> None:
    from pma.corpus.mix import ROUND, mixing_weights, round_counts

    sizes = {"/".join(filter(None, (hub["path"], hub["name"]))): hub["tokens"] for hub in manifest["hub"]}
    if "train" in manifest["parts"]:
        sizes = {"train.bin": manifest["parts"]["train"]["tokens"]} | sizes
    weights = [weight for weight in mixing_weights(data) or () if weight is not None]  # none for a train.bin not there
    for (name, tokens), count in zip(sizes.items(), round_counts(weights), strict=True):
        share = count / ROUND
        print(f"{share:8.2%} of training: {name}, {tokens:,} tokens, read once within {tokens / share:,.0f} trained on")


def main(job: DictConfig) -> None:
    """Entry point of `python -m pma.corpus`.

    Raises:
        ValueError: an impossible config.
        ConnectionError: something has to be downloaded and cannot be.
    """
    from pma.corpus.build import prepare, prepare_part

    data_dir = Path(job.data_dir)
    folder: Path | None
    if job.part is None:
        if job.parts != 1:
            raise ValueError(f"parts={job.parts}: also give part, 0 to {job.parts - 1}")
        folder = prepare(job.data, data_dir, job.processes)
    else:
        folder = prepare_part(job.data, data_dir, job.part, job.parts, job.processes)
    if folder is None:
        print(f"part {job.part} of {job.parts} is done; the last part to end gives the corpus its place")
    else:
        _show(folder, job.data)


def command() -> None:
    """The console script."""
    cli.run(main, CorpusJob, "corpus")


if __name__ == "__main__":
    command()
