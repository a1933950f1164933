"""The rules of claims.yaml and beyond.yaml, read and checked: claims, their lettered parts, what decides each part."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Container, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from records import ROOT

CLAIMS = ROOT / "analysis" / "claims.yaml"
BEYOND = ROOT / "analysis" / "beyond.yaml"  # the questions that the paper left open
RULES = ("above", "at_least", "level", "all_above", "all_at_least", "bound", "report")
_READ_BY = {  # keys of a part that only some rules read
    "margin": ("at_least", "all_at_least", "level", "bound"),
    "margin_of": ("at_least", "all_at_least", "level"),
    "smallest": ("above", "all_above"),
}
_UNITS = {"text": "bits per byte", "tasks": "bits per byte", "choice": "bits", "nats": "nats per token"}


@dataclass(frozen=True)
class Common:
    """Numbers that hold for every claim."""

    alpha: float
    least_seeds: int  # that a verdict needs
    exploratory: tuple[int, ...]  # seeds that were looked at before the rules: shown, never counted
    confirmatory: tuple[int, ...]
    smallest: Mapping[str, float]  # effect worth naming, by measure
    margin_share: float  # of the number that margin_of names


@dataclass(frozen=True)
class Part:
    """One lettered part of a claim: one headline number a seed, and the rule that judges it."""

    name: str  # a, b, ...
    says: str
    rule: str
    evidence: str  # name of a function of the package verdicts.evidence
    settings: Mapping[str, Any] = field(default_factory=dict)
    measure: str = "text"
    smallest: float = 0.0  # effect worth naming, of above and all_above
    margin: float = 0.0
    margin_of: str = ""  # name of a function of verdicts.evidence: the margin is a share of its number
    unit: str = ""

    @property
    def counted(self) -> bool:
        """Whether it takes part in the verdict."""
        return self.rule != "report"

    @property
    def has_margin(self) -> bool:
        """Whether its rule reads a margin."""
        return self.rule in _READ_BY["margin"]


@dataclass(frozen=True)
class Claim:
    """One claim, and the parts that decide it."""

    name: str  # C1, C2, ...
    source: str
    text: str
    paper: str  # what the paper shows for it
    experiments: tuple[str, ...]
    parts: tuple[Part, ...] = ()
    measure: str = ""  # what is measured, and why that is the same question
    limits: str = ""
    tried: str = ""  # where what the claim speaks of did not arise: what was tried for it
    seeds: tuple[int, ...] = ()  # that decide it, where the budget is for fewer than all confirmatory ones

    @property
    def command(self) -> str:
        """What makes its records anew."""
        return " ".join(["make", *(f"reproduce-{name.replace('_', '-')}" for name in self.experiments)])


@dataclass(frozen=True)
class Rules:
    """claims.yaml or beyond.yaml: claims that share one Holm correction."""

    common: Common
    claims: tuple[Claim, ...]
    path: Path = CLAIMS
    title: str = ""
    who: str = ""  # raised the claims
    target: str = ""  # of make: trains and scores all that they need
    changed_after_data: tuple[
        str, ...
    ] = ()  # a sentence for each rule that changed once confirmatory seeds were trained
    sha256: str = ""  # see rules_hash

    @property
    def experiments(self) -> tuple[str, ...]:
        """Those that some claim names."""
        return tuple(dict.fromkeys(name for claim in self.claims for name in claim.experiments))

    def seeds_of(self, experiment: str) -> set[int]:
        """Seeds that an experiment is to be trained with: those of the claims that name it."""
        every = {*self.common.exploratory, *self.common.confirmatory}
        return {s for claim in self.claims if experiment in claim.experiments for s in claim.seeds or every}


def rules_hash(path: Path = CLAIMS) -> str:
    """sha256 of what decides, in a file like claims.yaml: shows whether a rule changed after data.

    What decides: the common block, and of each claim its experiments, its parts without `says`, what was tried, and its
    seeds where they are its own. It is hashed as canonical JSON, so that comments, order and wording may be improved,
    and any change of a rule shows.
    """
    return _hash(_content(path))


def _hash(content: Mapping[str, Any]) -> str:
    text = json.dumps(_deciding(content), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


_ABOUT = ("title", "who", "target")  # of all claims of a file: decide nothing
_WORDS = ("says", "unit")  # of a part: what it is called, and what its number counts


def _deciding(content: Mapping[str, Any]) -> dict[str, Any]:
    claims = {}
    for name, claim in content["claims"].items():
        parts = claim.get("parts") or {}
        claims[name] = {
            "experiments": claim.get("experiments"),
            "parts": {letter: {k: v for k, v in part.items() if k not in _WORDS} for letter, part in parts.items()},
            "tried": claim.get("tried", ""),
            **{key: claim[key] for key in ("seeds",) if key in claim},
        }
    return {"common": content["common"], "claims": claims}


def _content(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if unknown := sorted(set(content) - {"common", "claims", "changed_after_data", *_ABOUT}):
        known = ", ".join(["common", "claims", "changed_after_data", *_ABOUT])
        raise ValueError(f"{path.name}: unknown key {unknown[0]}; known are {known}")
    return content


def evidence_functions() -> Mapping[str, Callable[..., Any]]:
    """The functions that a part may name, by name: those that verdicts.evidence exports."""
    package = importlib.import_module("verdicts.evidence")
    return {name: getattr(package, name) for name in package.__all__}


def load_rules(path: Path = CLAIMS, functions: Container[str] | None = None) -> Rules:
    """The rules and claims of a file.

    Args:
        path: a file like claims.yaml.
        functions: names of evidence that parts may use; those of verdicts.evidence by default.

    Raises:
        ValueError: when a claim or a part is not as the head of claims.yaml says; names claim, part and key.
    """
    functions = evidence_functions() if functions is None else functions
    content = _content(path)
    common = _common(content["common"], f"{path.name}, common")
    claims = (_claim(name, entry, common, functions, path.name) for name, entry in content["claims"].items())
    about = {key: content.get(key, "") for key in _ABOUT}
    changed = tuple(content.get("changed_after_data") or ())
    return Rules(common, tuple(claims), path, **about, changed_after_data=changed, sha256=_hash(content))


def all_rules() -> tuple[Rules, Rules]:
    """The paper's claims, and what it left open."""
    return load_rules(CLAIMS), load_rules(BEYOND)


def _common(entry: Mapping[str, Any], where: str) -> Common:
    _check_keys(Common, entry, where)
    seeds = {name: tuple(entry[name]) for name in ("exploratory", "confirmatory")}
    if both := sorted(set(seeds["exploratory"]) & set(seeds["confirmatory"])):
        raise ValueError(f"{where}: seed {both[0]} is exploratory and confirmatory; leave it in one of them")
    return Common(**{**entry, **seeds})


def _claim(name: str, entry: Mapping[str, Any], common: Common, functions: Container[str], file: str) -> Claim:
    where = f"{file}, claim {name}"
    _check_keys(Claim, entry, where)
    letters = entry.get("parts") or {}
    parts = tuple(_part(letter, part, common, functions, f"{where}, part {letter}") for letter, part in letters.items())
    if not entry.get("tried") and not any(part.counted for part in parts):
        raise ValueError(f"{where}: no part counts; give one a rule other than report, or say under tried what you did")
    seeds = tuple(entry.get("seeds") or ())
    if strange := sorted(set(seeds) - set(common.confirmatory)):
        raise ValueError(f"{where}: seeds names {strange[0]}, which is not among the confirmatory ones")
    return Claim(name, **{**entry, "experiments": tuple(entry["experiments"]), "parts": parts, "seeds": seeds})


def _part(letter: str, entry: Mapping[str, Any], common: Common, functions: Container[str], where: str) -> Part:
    _check_keys(Part, entry, where)
    rule, measure = entry["rule"], entry.get("measure", "text")
    _check_one_of("rule", rule, RULES, where)
    _check_one_of("measure", measure, tuple(common.smallest), where)
    for key in ("evidence", "margin_of"):
        if key in entry and entry[key] not in functions:
            raise ValueError(f"{where}: {key} names {entry[key]}, and verdicts/evidence has no function of that name")
    margins = [key for key in ("margin", "margin_of") if key in entry]
    if len(margins) == 2:
        raise ValueError(f"{where}: margin and margin_of stand side by side; keep one")
    if rule in _READ_BY["margin"] and not margins:
        raise ValueError(f"{where}: rule {rule} needs margin or margin_of")
    # A key that the rule does not read would look as if it decided something.
    if unread := [key for key, readers in _READ_BY.items() if key in entry and rule not in readers]:
        raise ValueError(f"{where}: rule {rule} does not read {unread[0]}; leave it out")
    smallest = common.smallest[measure] if rule in _READ_BY["smallest"] else 0.0
    defaults = {"smallest": smallest, "unit": _UNITS.get(measure, "")}
    return Part(letter, **{**defaults, **entry})


def _check_one_of(key: str, value: str, allowed: tuple[str, ...], where: str) -> None:
    if value not in allowed:
        raise ValueError(f"{where}: {key} is {value}; it can be {', '.join(allowed)}")


def _check_keys(of: type, entry: Mapping[str, Any], where: str) -> None:
    """Every key is one of the dataclass's, and none that has no default is left out."""
    known = {f.name: f for f in fields(of) if f.name != "name"}
    if unknown := [key for key in entry if key not in known]:
        raise ValueError(f"{where}: unknown key {unknown[0]}; known are {', '.join(known)}")
    needed = [name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in needed if name not in entry]:
        raise ValueError(f"{where}: {missing[0]} is missing")
