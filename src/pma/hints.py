"""What is wrong with a command line, in one line, and how to write it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

_UNKNOWN = re.compile(r"Could not override '([^']+)'")
_NO_CHOICE = re.compile(r"Could not find '([^']+)/([^'/]+)'")
_NO_VALUE = re.compile(r"Error merging override (.+)")
# What installs a package that the core of pma does without; pma[train] installs all others.
_EXTRAS = {"huggingface_hub": "hub", "lm_eval": "evaluate", "matplotlib": "report", "vllm": None}
_SEVERAL = re.compile(r"Ambiguous value for argument '([^']+)'")


def explain(error: Exception, folder: Path, config_name: str, arguments: Sequence[str]) -> str:
    """An error of Hydra or OmegaConf in composing a config as one line, `error: ...`.

    Args:
        folder: of the primary config, as config_name.
        arguments: the command line.
    """
    text, cause = str(error), _one_line(error.__cause__)
    if text.startswith("error: "):  # of a job of a sweep
        return text
    if not_a_key := [word for word in arguments if "=" not in word and not word.startswith(("-", "~"))]:
        return f"error: {not_a_key[0]}: {_no_key(arguments, not_a_key[0])}"
    if match := _SEVERAL.search(text):
        key, _, values = match[1].partition("=")
        return f"error: {match[1]}: several values; {_write_list(key, values.split(','))}, or sweep over them with -m"
    if match := _UNKNOWN.search(text):
        return f"error: {match[1]}: {_no_such_key(match[1], cause, folder, config_name)}"
    if match := _NO_CHOICE.search(text):
        if match[1].startswith("hydra/"):
            return f"error: {match[1]}={match[2]}: no such plugin of Hydra; pip install 'pma[train]' has those of pma"
        choices = sorted(path.stem for path in (folder / match[1]).glob("*.yaml"))
        hint = _did_you_mean(difflib.get_close_matches(match[2], choices, n=1, cutoff=0.5))
        return f"error: {match[1]}={match[2]}: no such choice; {hint or 'choose one of ' + ', '.join(choices)}"
    if match := _NO_VALUE.search(text):
        key = match[1].partition("=")[0]
        if "is not a ListConfig, list or tuple" in cause:
            values = [word.partition("=")[2] for word in arguments if word.partition("=")[0] == key]
            return f"error: {match[1]}: {key} is a list; {_write_list(key, values)}"
        return f"error: {match[1]}: {cause}"
    line = _one_line(error)
    return f"error: {line} ({cause})" if cause and cause not in line else f"error: {line}"


def missing_package(error: ModuleNotFoundError) -> str | None:
    """How to install the package that an import did not find; None for a module of pma itself."""
    name = (error.name or "").partition(".")[0]
    if name in ("", "pma"):
        return None
    extra = _EXTRAS.get(name, "train")
    what = name if extra is None else f"'pma[{extra}]'"
    return f"{name} is not installed, and this needs it: pip install {what}"


def _one_line(error: BaseException | None) -> str:
    """The message alone: without OmegaConf's full_key and Hydra's search path and links."""
    if error is None:
        return ""
    return " ".join(re.split(r"\n    full_key|\nConfig search path|\nSee http", str(error))[0].split())


def _no_key(arguments: Sequence[str], word: str) -> str:
    """What to write instead of a word without a key: the shell makes KEY=a b c of a pattern KEY=*."""
    at = arguments.index(word)
    if at == 0 or "=" not in arguments[at - 1]:
        return "not KEY=VALUE; --help lists all keys"
    end = next((i for i in range(at, len(arguments)) if "=" in arguments[i]), len(arguments))
    key, _, value = arguments[at - 1].partition("=")
    return f"not KEY=VALUE; if it belongs to {key}, {_write_list(key, [value, *arguments[at:end]])}"


def _write_list(key: str, values: Sequence[str]) -> str:
    if len(values) == 1 and re.search(r"[*?]", values[0]):  # by number, so that step-200 comes before step-1000
        return f'write "{key}=[$(ls -dv {values[0]} | paste -sd,)]"'
    return f"write '{key}=[{','.join(values)}]'"


def _no_such_key(name: str, cause: str, folder: Path, config_name: str) -> str:
    """The keys most like `name`, or where to look. `peak_lr` finds schedule.peak_lr."""
    with initialize_config_dir(str(folder), version_base="1.3"):
        keys = [*_keys(compose(config_name)), *(path.name for path in folder.iterdir() if path.is_dir())]
    if name in keys:  # it is within its value
        return cause
    close = difflib.get_close_matches(name, keys, n=1)
    same_end = [key for key in keys if key.endswith(f".{name.rpartition('.')[2]}")]
    return f"no such key; {_did_you_mean(same_end or close) or '--help lists all keys'}"


def _did_you_mean(names: Sequence[str]) -> str:
    return f"did you mean {' or '.join(names)}?" if names else ""


def _keys(cfg: DictConfig, above: str = "") -> Iterator[str]:
    for key in cfg:
        yield f"{above}{key}"
        if not OmegaConf.is_missing(cfg, key) and OmegaConf.is_dict(cfg._get_node(key)):
            yield from _keys(cfg[key], f"{above}{key}.")
