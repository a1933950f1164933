"""Training on from a merge: the newest checkpoint, copied as its trainer wrote it, with the averages in their places.

The copy keeps names, types and sharding, metadata, schedules, counters and random states, none of which is read here.
Whatever holds the weights is averaged: the model, its copies in fp32 that a trainer would else put in its place again,
and averages such as an EMA. Moments of the optimizer are the newest's, averaged, or 0 as in the beginning.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pma.files import write_text
from pma.json_files import MANIFEST
from pma.merge import ranks
from pma.merge.formats import Piece, Source, TensorInfo, View, dcp_home, fetch, is_copy
from pma.merge.formats.beside import OPTIMIZERS, open_beside, role_of
from pma.merge.options import Merge
from pma.merge.patch import Patch
from pma.merge.plan import Plan
from pma.merge.stream import Pass

_TRAINER_STATE, _MARKER = "trainer_state.json", "latest_checkpointed_iteration.txt"
_NOT_COPIED = {MANIFEST, "diagnostics.json"}
# Weights that a trainer could read instead of those that were merged.
_WEIGHT_FILE = re.compile(r".*\.safetensors|pytorch_model.*\.bin|.*\.distcp|.*_states\.pt")


def _layout(newest: Source) -> str:
    """Whose checkpoint it is: trainer | megatron | olmo-core | dcp (torchtitan, FSDP) | file (Lightning).

    Raises:
        ValueError: when it is no checkpoint of a trainer.
    """
    if fetch(newest.name).is_file():
        if newest.format == "torch":
            return "file"
    elif (newest.folder / _TRAINER_STATE).is_file():
        return "trainer"
    elif newest.format == "dcp":
        home = dcp_home(newest.folder)
        assert home is not None, "a source in this format was opened there"
        if (home / "common.pt").is_file():
            return "megatron"
        return "olmo-core" if home.name == "model_and_optim" else "dcp"
    raise ValueError(
        f"resumable=true: {newest.name} is a model, without the state of a trainer ({_TRAINER_STATE} of the Hugging "
        f"Face Trainer, or a distributed checkpoint); leave resumable out, and start a new run from the merge"
    )


class TrainerCheckpoint:
    """What a merge is written as with resumable=true; see `pma.merge.write.ModelFolder` for the other way.

    Raises:
        ValueError: when the newest checkpoint cannot be trained on from, or not with that optimizer.
    """

    def __init__(self, prepared: Plan, merges: Sequence[Merge]) -> None:
        self._prepared = prepared
        self._newest = newest = prepared.sources[-1]
        if newest.dequantized or newest.copied:
            how = "merge adapters with lora=factors" if newest.copied else "no trainer goes on from fp8 with scales"
            raise ValueError(f"resumable=true: tensors of {newest.name} get other shapes or types; {how}")
        if is_copy(prepared.options.key or ""):
            raise ValueError(f"resumable=true: key={prepared.options.key} is an average; name the weights themselves")
        self._layout, self.format = _layout(newest), newest.format
        for merge in merges:
            self._check(merge)
        self._stack = ExitStack()
        try:
            self._sources = [open_beside(newest)]
            self._stack.callback(self._sources[0].close)
            self._choose(merges)
            self._files = self._copied()
        except BaseException:
            self.close()
            raise

    def _check(self, merge: Merge) -> None:
        if not merge.weights[-1]:
            raise ValueError(
                f"resumable=true: {self._newest.name} has weight 0 in {merge.output}; a merge goes on from the newest "
                f"checkpoint, so end the window with one that counts"
            )
        if self._layout != "megatron" or not self._newest.folder.name.startswith("iter_"):
            return
        if merge.output.name != self._newest.folder.name:
            raise ValueError(
                f"output={merge.output}: Megatron finds a checkpoint by its number; give a folder that ends with "
                f"{self._newest.folder.name}, such as {merge.output / self._newest.folder.name}"
            )
        if (marker := merge.output.parent / _MARKER).exists():
            raise ValueError(f"{marker}: there already; give the output a folder of its own")

    def _choose(self, merges: Sequence[Merge]) -> None:
        """Decide what happens to the tensors beside the model, and open them where they are averaged."""
        beside, optimizer = self._sources[0], self._prepared.options.optimizer
        roles = {name: role_of(name) for name in beside.tensors}
        moments = [name for name, role in roles.items() if role == "moment"]
        steps = [name for name, role in roles.items() if role == "step"]
        self._copies = [name for name, role in roles.items() if role == "weights" and beside.tensors[name].floating]
        files = any((self._newest.folder / file).is_file() for file in OPTIMIZERS)
        if optimizer != "reset" and not files and not any("optim" in name for name in roles):
            raise ValueError(
                f"optimizer={optimizer}: {self._newest.name} holds no state of an optimizer; take optimizer=reset, and "
                f"your trainer begins with a new one"
            )
        if optimizer == "reset":
            _check_reset(self._newest.name, roles, steps)
        if optimizer == "average":
            _check_average(self._newest.name, beside.tensors, moments, merges)
        self._zeroed = [*moments, *steps] if optimizer == "reset" else []
        averaged = [*self._copies, *(moments if optimizer == "average" else [])]
        self._work = self._prepare(averaged) if averaged else None
        self._places: dict[str, tuple[TensorInfo, list[Piece]]] = {}
        for source, names in ((self._newest, list(self._newest.tensors)), (beside, [*averaged, *self._zeroed])):
            self._places |= {name: (source.tensors[name], source.pieces(name)) for name in names}

    def _prepare(self, names: Sequence[str]) -> Plan:
        """The second pass, over what is averaged beside the model."""
        for source in self._prepared.sources[-2::-1]:
            self._sources.insert(0, open_beside(source))
            self._stack.callback(self._sources[0].close)
        newest = self._sources[-1]
        for other in self._sources[:-1]:
            for name in names:
                if other.tensors.get(name, TensorInfo("", ())).shape != newest.tensors[name].shape:
                    raise ValueError(
                        f"{other.name}: {name} is missing or has another shape than in {newest.name}; it is averaged "
                        f"with the weights, so merge checkpoints that the same code wrote on the same machines"
                    )
        views = [View(source, {name: source.tensors[name] for name in names}) for source in self._sources]
        options, sums = self._prepared.options, self._prepared.sums
        work = Pass(
            views,
            sums,
            accumulate=options.accumulate,
            memory=options.memory,
            threads=options.cores(),
            processes=True,
            grams=False,
        )
        return Plan(views, sums, work, options, self._prepared.policy, router_biases=())

    def _copied(self) -> list[Path]:
        """The files of the newest checkpoint that are copied.

        Raises:
            ValueError: for weights among them that are not merged.
        """
        if (path := fetch(self._newest.name)).is_file():
            return [path]
        files = [path for path in sorted(self._newest.folder.rglob("*")) if path.is_file()]
        merged = {path.resolve() for path in (*self._newest.files(), *self._sources[-1].files())}
        for path in files:
            if _WEIGHT_FILE.fullmatch(path.name) and path.resolve() not in merged:
                raise ValueError(
                    f"{path}: weights beside those that are merged, which the trainer could read instead; move them "
                    f"out of {self._newest.folder.name}, or leave resumable out"
                )
        return [path for path in files if path.name not in _NOT_COPIED]

    @property
    def weight_files(self) -> tuple[str, ...]:
        """Ends of the names of files that the content hash stands for."""
        return tuple(path.name for path in self._newest.files())

    def sizes(self) -> tuple[int, int]:
        """Bytes of each merge, and bytes more while one is made."""
        return sum(path.stat().st_size for path in self._files), 0

    def writer(self, aside: Path, create: bool) -> Patch:
        """Copy the newest checkpoint, where this process is the one to do it, and open the copy."""
        for path in self._files if create else []:
            copy = aside / path.relative_to(self._newest.folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        return Patch(self._places, self._newest.folder, aside)

    def average_beside(self, writers: Sequence[Any], outputs: Sequence[str], group: ranks.Group) -> None:
        """Average what holds the weights once more, and the moments where they are averaged.

        Raises:
            ValueError: for NaN, infinity, or a sum that overflows.
        """
        if self._work is not None:
            self._work.run(lambda index, *block: writers[index].write(*block), outputs, group)

    def finish(self, aside: Path, writer: Any) -> dict[str, Any]:
        """Complete the copy; return what the manifest says of it."""
        for name in self._zeroed:
            writer.zero(name)
        writer.seal()
        options = self._prepared.options
        kept = {"layout": self._layout, "from": self._newest.name, "optimizer": options.optimizer}
        return {"resumable": {**kept, "copies_of_weights_averaged": len(self._copies)}}

    def describe(self, aside: Path, manifest: Mapping[str, Any]) -> None:
        """A model card speaks of models; the manifest says what this is."""

    def published(self, output: Path) -> None:
        """Say to Megatron which checkpoint is there."""
        if self._layout == "megatron" and (match := re.fullmatch(r"iter_0*(\d+)", output.name)):
            write_text(output.parent / _MARKER, match[1])

    def close(self) -> None:
        """Close the files."""
        self._stack.close()


def _check_reset(name: str, roles: Mapping[str, str | None], steps: Sequence[str]) -> None:
    unknown = [k for k, role in roles.items() if role is None and "optim" in k and "param_groups" not in k]
    if unknown:
        raise ValueError(
            f"optimizer=reset: how {unknown[0]} of {name} begins is not known here; take optimizer=last, and let your "
            f"trainer start with a new optimizer"
        )
    if not steps and any("exp_avg_sq" in k for k in roles):
        raise ValueError(
            f"optimizer=reset: the optimizer of {name} counts its steps elsewhere than in a tensor; take "
            f"optimizer=last, and let your trainer leave it out (--no-load-optim in Megatron)"
        )


def _check_average(name: str, infos: Mapping[str, TensorInfo], moments: Sequence[str], merges: Sequence[Merge]) -> None:
    other = [k for k in moments if not infos[k].floating]
    if other or not moments:
        what = f"{other[0]} is stored as {infos[other[0]].dtype}" if other else "no moments that are known by name"
        raise ValueError(f"optimizer=average: {what} in {name}; take optimizer=last")
    if any(weight < 0 for merge in merges for weight in merge.weights):
        raise ValueError("optimizer=average: a weight below 0 can make a mean of squares negative; take optimizer=last")


def advice(layout: str, output: Path) -> str:
    """How the trainer goes on from a merge, for people."""
    if layout == "file":
        output = next(path for path in output.iterdir() if path.suffix != ".json")
    return {
        "trainer": f'trainer.train(resume_from_checkpoint="{output}")',
        "megatron": f"--load {output.parent}",
        "olmo-core": f"load_path={output}, or a save_folder of which it is the newest step",
        "dcp": f"torchtitan: checkpoint.initial_load_path={output.absolute()} checkpoint.initial_load_model_only=false",
        "file": f'trainer.fit(model, ckpt_path="{output}")',
    }[layout]
