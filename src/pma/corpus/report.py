"""What a corpus holds, for manifest.json: documents, bytes and tokens by domain and part."""

from __future__ import annotations

from collections import defaultdict

from pma.corpus.clean import Document


def domain_table(parts: dict[str, tuple[list[Document], dict[str, int]]]) -> dict[str, dict[str, dict[str, int]]]:
    """Documents, UTF-8 bytes and tokens by domain and part.

    Args:
        parts: of each part its documents, and its tokens by domain.
    """
    domains: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)
    for part, (documents, tokens) in parts.items():
        for document in documents:
            summary = domains[document.domain].setdefault(part, {"documents": 0, "bytes": 0})
            summary["documents"] += 1
            summary["bytes"] += len(document.text.encode())
        for domain, count in tokens.items():
            domains[domain][part]["tokens"] = count
    return dict(sorted(domains.items()))


def bytes_per_token(domains: dict[str, dict[str, dict[str, int]]]) -> float | None:
    """UTF-8 bytes a token of all text to train on; None without any."""
    train = [parts["train"] for parts in domains.values() if "train" in parts]
    return sum(t["bytes"] for t in train) / sum(t["tokens"] for t in train) if train else None
