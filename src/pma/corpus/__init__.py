"""Corpus: documents with a domain label from pinned sources, split, tokenised, with evaluation items."""

from pma.corpus.build import prepare
from pma.corpus.tokens import TokenDataset, batches

__all__ = ["TokenDataset", "batches", "prepare"]
