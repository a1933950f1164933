"""The one path of every merge: sources checked and a pass prepared, then run and judged, whoever takes the blocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pma.merge import ranks
from pma.merge.check import check_weights, judge
from pma.merge.diagnose import FEWEST
from pma.merge.formats import Source, TensorInfo
from pma.merge.options import DTYPES, MERGE_RATE, Options, Policy
from pma.merge.stream import Pass, Write
from pma.merge.summary import Seen, Sum, summarize

# Load-balancing biases, which training steers by counting tokens and not by gradients: DeepSeek-V3 and its kin in
# transformers; Megatron and torchtitan.
_ROUTER_BIAS = re.compile(r"(^|\.)(e_score_correction_bias|expert_bias(_E)?)$")
_START = 0.5  # seconds, for estimates


@dataclass(frozen=True)
class Plan:
    """Merges that only need to be run.

    Attributes:
        sources: open, oldest first, of one architecture.
        sums: the weights of each merge.
        work: the pass that computes them.
        router_biases: names of the routers' load-balancing biases.
    """

    sources: Sequence[Source]
    sums: Sequence[Sum]
    work: Pass
    options: Options
    policy: Policy
    router_biases: Sequence[str]

    def stored(self) -> dict[str, TensorInfo]:
        """Type and shape of each tensor of a merge; the same for all."""
        return {k: TensorInfo(self.sums[0].stored(info), info.shape) for k, info in self.sources[-1].tensors.items()}

    def dtype(self) -> str | None:
        """The one storage type of floating tensors in a merge, by torch's name; None where they have several."""
        kinds = {info.dtype for info in self.stored().values() if info.floating}
        return next(name for name, kind in DTYPES.items() if {kind} == kinds) if len(kinds) == 1 else None

    def seconds(self) -> float:
        """Estimated time where the disk keeps up."""
        return _START + self.work.input_bytes / MERGE_RATE / self.options.cores()

    def run(
        self,
        write: Write,
        names: Sequence[str],
        group: ranks.Group | None = None,
        progress: Callable[[int], None] = lambda read: None,
    ) -> tuple[Seen, list[str]] | None:
        """Run the pass, and judge what it shows.

        Args:
            write: takes each block of each merge; see `Pass.run`.
            names: what to call each merge in a message.
            group: the processes that share the work; null: this one alone.
            progress: called with the bytes read since it was last called.

        Returns:
            What was seen, and the warnings of the policy; None in all processes but the first.

        Raises:
            ValueError: for what the policy refuses.
        """
        group = group or ranks.Group()
        results = group.gather(self.work.run(write, slice(group.rank, None, group.size), progress))
        if not group.first:
            return None
        seen = summarize(self.sources, self.sums, results)
        return seen, judge(seen, self.sources, names, self.policy)


def plan(
    sources: Sequence[Source],
    weights: Sequence[Sequence[float]],
    options: Options,
    policy: Policy,
    processes: bool = False,
) -> Plan:
    """Prepare a merge for each list of weights, after checking all that headers can tell.

    Args:
        sources: from `open_sources`.
        weights: of each merge, a weight a source, oldest first.
        processes: whether what takes the blocks also works from a forked process.

    Raises:
        ValueError: for impossible options or weights.
    """
    options.check()
    policy.check()
    sums = [Sum(check_weights(w, len(sources), options.accumulate), DTYPES[options.dtype]) for w in weights]
    if sources[-1].adapter is not None and options.format == "dcp":
        raise ValueError("format=dcp: adapters are written as PEFT reads them; leave format=safetensors")
    router_biases = sorted(name for name in sources[-1].tensors if _ROUTER_BIAS.search(name))
    work = Pass(
        sources,
        sums,
        newest_only=sources[-1].copied | frozenset(router_biases if policy.router_bias == "newest" else ()),
        accumulate=options.accumulate,
        memory=options.memory,
        threads=options.cores(),
        processes=processes,
        # Stacked adapters stand in places of their own, where distances between them say nothing.
        grams=not sources[-1].copied and (options.diagnose or len(sources) >= FEWEST),
    )
    return Plan(sources, sums, work, options, policy, router_biases)
