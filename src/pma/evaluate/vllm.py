"""Score model folders through lm-eval's vLLM model: for models that one GPU does not hold."""

from __future__ import annotations

import gc
from pathlib import Path

import torch
from lm_eval.api.model import LM
from lm_eval.api.registry import get_model
from transformers import AutoConfig, AutoTokenizer

from pma.evaluate.scorer import CachedScorer, Score, architecture, tokenizer_state
from pma.evaluate.suites import Suite

DTYPE = "bfloat16"  # explicit, as vLLM takes fp16 for weights that are stored in fp32


def vllm_class() -> type[LM]:
    """lm-eval's vLLM model.

    Raises:
        ValueError: when vLLM is not installed.
    """
    try:
        return get_model("vllm")
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != "vllm":
            raise
        raise ValueError(
            "vLLM is not installed in this environment. It pins a torch of its own, so give it an environment of its "
            "own (docs/distributed.md, vLLM, says how). Then run this command with the Python of that environment, or "
            "give that Python to pma.reproduce launcher=slurm as scoring_python=PATH"
        ) from None


def tensor_parallel_size(requested: int | None) -> int:
    """GPUs that share a model: the number asked for, or all that are visible."""
    return requested or max(1, torch.cuda.device_count())


class VllmScorer(CachedScorer):
    """Scores model folders of one architecture and tokenizer, each by a vLLM engine of its own, in bf16.

    bf16 rounds, so scores differ a little from those of `Scorer`, and are cached apart.

    Args:
        suite: from `load_suite`.
        like: one of the folders, or another with their config and tokenizer.
        cache_dir: of the scores, see `CachedScorer`.
        gpus: that share a model (tensor parallelism), a divisor of its attention heads; null: all that are visible.
        max_model_len: tokens of the longest input with what is generated; null: the model's own.

    Raises:
        ValueError: when vLLM is not installed.
    """

    def __init__(
        self, suite: Suite, like: Path, cache_dir: Path, gpus: int | None = None, max_model_len: int | None = None
    ) -> None:
        self._class = vllm_class()
        self._options = {"tensor_parallel_size": tensor_parallel_size(gpus), "max_model_len": max_model_len}
        tokenizer = AutoTokenizer.from_pretrained(like, local_files_only=True)
        config = AutoConfig.from_pretrained(like, local_files_only=True)
        longest = max_model_len or config.max_position_embeddings
        super().__init__(suite, [tokenizer_state(tokenizer), architecture(config), longest, "vllm", DTYPE], cache_dir)

    def score_folder(self, weights_hash: str, folder: Path) -> list[Score]:
        """Scores of a folder whose weights are named `weights_hash`; the engine starts only where none are cached.

        Raises:
            ValueError: when the model gives log-likelihoods that are not finite.
        """

        def load() -> None:
            self._lm = self._class(pretrained=str(folder), dtype=DTYPE, batch_size="auto", **self._options)

        try:
            return self.score(weights_hash, load)
        finally:
            self._lm = None
            gc.collect()  # an engine gives its GPUs back when it is collected, and the next one needs them
