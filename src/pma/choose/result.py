"""What a search found: the candidates from the best to the worst, the baselines, and what a merge gains over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pma.choose.candidates import Candidate
from pma.choose.halves import Values, paired_gain, score
from pma.choose.kept import Scored
from pma.choose.measure import Measure


@dataclass(frozen=True)
class Result:
    """Candidates on the half that chooses, and some of them on the half that reports.

    Attributes:
        chosen: on the half that chooses, the best first; without those that are refused.
        reported: on the other half.
        refused: why a candidate cannot be merged.
        left: candidates that are not scored yet.
        methods: of the merges, in the order in which they were asked for.
    """

    measure: Measure
    chosen: Mapping[Candidate, Scored]
    refused: Mapping[Candidate, str]
    left: int
    methods: Sequence[str]
    reported: Mapping[Candidate, Values] = field(default_factory=dict)

    @classmethod
    def of(cls, wanted: Sequence[Candidate], scored: Mapping[Candidate, Scored], measure: Measure) -> Result:
        """Put the candidates in order. Of equal ones the shorter window stands first, which costs less."""
        sign = -1 if measure.higher else 1

        def place(candidate: Candidate) -> tuple[float, int]:
            return sign * score(scored[candidate].values), candidate.n

        order = sorted((candidate for candidate in scored if not scored[candidate].refused), key=place)
        refused = {candidate: each.refused for candidate, each in scored.items() if each.refused}
        merges = {candidate.method for candidate in order} - {"single"}
        methods = [method for method in dict.fromkeys(candidate.method for candidate in wanted) if method in merges]
        return cls(measure, {c: scored[c] for c in order}, refused, len(wanted) - len(scored), methods)

    @property
    def best(self) -> Candidate | None:
        """The best merge; None where none is scored."""
        return next((candidate for candidate in self.chosen if candidate.method != "single"), None)

    @property
    def singles(self) -> list[Candidate]:
        """Checkpoints by themselves, the best first."""
        return [candidate for candidate in self.chosen if candidate.method == "single"]

    @property
    def newest(self) -> Candidate:
        """The last checkpoint."""
        return max(self.singles, key=lambda single: single.window)

    def head(self, rows: int) -> list[Candidate]:
        """The best candidates, and all that a gain is said of."""
        wanted = [*list(self.chosen)[:rows], *([self.best] if self.best else []), self.singles[0], self.newest]
        return list(dict.fromkeys(wanted))

    def chosen_gain(self, candidate: Candidate) -> float:
        """What a candidate gains over the last checkpoint on the half that chooses."""
        scores = [score(self.chosen[each].values) for each in (candidate, self.newest)]
        return (scores[0] - scores[1]) * (1 if self.measure.higher else -1)

    def gain(self, candidate: Candidate, over: Candidate) -> tuple[float, float]:
        """What a candidate gains over another on the half that reports, and half the interval of that."""
        both = self.reported[candidate], self.reported[over]
        return paired_gain(*both, self.measure.sizes[1], self.measure.higher)
