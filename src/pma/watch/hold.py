"""Hold checkpoints by hard links, so that they outlive the trainer's own clean-up."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from pma.files import publish_folder
from pma.merge.formats import open_source
from pma.merge.write import assets


def held(folder: Path) -> dict[int, Path]:
    """Checkpoints held in `folder`, by position."""
    return {int(path.name): path for path in folder.glob("*") if path.name.isdigit()}


def hold(checkpoint: Path, position: int, folder: Path) -> Path:
    """Link the weights, config and tokenizer of a checkpoint into FOLDER/POSITION; returns that folder.

    Files are copied where links are impossible, as between two file systems. What is held already is left as it is.

    Raises:
        ValueError: when the checkpoint cannot be read.
    """
    final = folder / str(position)
    if final.exists():
        return final
    source = open_source(checkpoint)
    files = [*source.files(), *assets(source, None), *checkpoint.glob("*.index.json")]
    source.close()
    with publish_folder(final) as aside:
        for path in files:
            try:
                os.link(path, aside / path.name)
            except OSError:
                shutil.copyfile(path, aside / path.name)
    return final


def release(folder: Path, needed: Collection[int], before: int) -> None:
    """Remove held checkpoints at positions below `before` that are not `needed`."""
    for position, path in held(folder).items():
        if position < before and position not in needed:
            shutil.rmtree(path)
