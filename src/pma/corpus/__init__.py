"""Corpus: documents with a domain label from pinned sources, split, tokenised, with evaluation items."""

from pma.corpus.build import prepare, prepare_part
from pma.corpus.tokens import TokenDataset, batches, mixing_weights

__all__ = ["TokenDataset", "batches", "mixing_weights", "prepare", "prepare_part"]
