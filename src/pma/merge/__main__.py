"""Merge snapshots of a run, or models from elsewhere.

python -m pma.merge run_dir=DIR method=sma n=10 interval=TOKENS end=TOKENS output=OUT
python -m pma.merge 'sources=[A,B,C]' method=ema alpha=0.2 output=OUT      (oldest first)
python -m pma.merge 'sources=[A,B,C]' 'weights=[0.2,0.3,0.5]' output=OUT
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from pma import cli
from pma.merge.engine import merge_folders
from pma.merge.select import run_window
from pma.merge.weights import explicit, method_weights


def _folders(job: DictConfig) -> list[Path]:
    by_window = {key: job[key] for key in ("n", "interval", "end")}
    if (job.run_dir is None) == (not job.sources):
        raise ValueError("give either run_dir=DIR with n, interval and end, or sources=[A,B,...] (oldest first)")
    if job.run_dir is None:
        given = [key for key, value in by_window.items() if value is not None]
        if given:
            raise ValueError(f"{', '.join(given)}: goes with run_dir; sources=[...] names the models themselves")
        return [Path(source) for source in job.sources]
    missing = [key for key, value in by_window.items() if value is None]
    if missing:
        raise ValueError(f"run_dir={job.run_dir}: also give {', '.join(missing)} (interval and end in tokens)")
    return run_window(Path(job.run_dir), **by_window)


def main(job: DictConfig) -> None:
    """Entry point of `python -m pma.merge`.

    Raises:
        ValueError: for options that do not go together, or sources that cannot be merged.
    """
    if (job.method is None) == (job.weights is None):
        raise ValueError("give either method=sma|wma|ema or weights=[...] (one for each source, oldest first)")
    folders = _folders(job)
    if job.weights is not None:
        weights = explicit(job.weights, len(folders))
    else:
        weights = method_weights(job.method, len(folders), job.alpha)
    recipe = {k: v for k, v in OmegaConf.to_container(job).items() if k not in ("output", "dtype") and v}
    merge_folders(folders, weights, Path(job.output), job.dtype, recipe)
    for folder, weight in zip(folders, weights, strict=True):
        print(f"{weight:10.6f}  {folder}")
    print(f"merged {len(folders)} snapshots (weights sum to {sum(weights):.6g}) into {job.output}")


if __name__ == "__main__":
    cli.run(main, "merge", "command")
