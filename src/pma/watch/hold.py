"""Hold checkpoints by hard links, so that they outlive the trainer's own clean-up."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from pma.files import publish_folder, remove_folder
from pma.layout import position_of
from pma.merge.formats import open_source
from pma.merge.options import Part
from pma.merge.write import assets


def held(folder: Path) -> dict[int, Path]:
    """Checkpoints held in `folder`, by position: the folder of each, or the file where the checkpoint is one file."""
    folders = {int(path.name): path for path in folder.glob("*") if path.name.isdigit()}
    return {at: _file_in(path, at) or path for at, path in folders.items()}


def _file_in(folder: Path, position: int) -> Path | None:
    return next((path for path in folder.iterdir() if path.is_file() and position_of(path.name) == position), None)


def hold(checkpoint: Path, position: int, folder: Path, part: Part) -> Path:
    """Link the weights, config and tokenizer of a checkpoint into FOLDER/POSITION; returns the checkpoint there.

    Files keep their names and the folders below the checkpoint that they lie in. They are copied where links are
    impossible, as between two file systems.

    Args:
        part: which of its tensors are the model. All files are held; but what the merge would refuse is refused here.

    Raises:
        ValueError: when the checkpoint cannot be read.
    """
    if (already := held(folder).get(position)) is not None:
        return already
    source = open_source(checkpoint, part.prefix, part.state, part.key)
    files = [*source.files(), *assets(source, None), *checkpoint.glob("*.index.json")]
    home = source.folder
    source.close()
    with publish_folder(folder / str(position)) as aside:
        for path in files:
            place = aside / path.relative_to(home)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, place)
            except OSError:
                shutil.copyfile(path, place)
    return held(folder)[position]


def release(folder: Path, needed: Collection[int], before: int) -> None:
    """Remove held checkpoints at positions below `before` that are not `needed`."""
    for position in held(folder):
        if position < before and position not in needed:
            remove_folder(folder / str(position))
