"""Draw figures and tables from records.

python analysis/draw.py --scale cpu                  all that has records, your own in runs/cpu
python analysis/draw.py --scale cpu figure_4         one experiment
python analysis/draw.py --scale cpu --published      from the published records in runs/cpu/published

An experiment is drawn by analysis/figures/NAME.py. One without such a file gets a plain picture of its scores against
tokens, a line for each recipe.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from records import ROOT, Study, configured_experiments

from pma.cli import quiet_libraries
from pma.words import experiment_title, print_next, short


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Draw figures and tables from records.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments; none draws all that have records")
    parser.add_argument("--scale", default="cpu")
    parser.add_argument("--available", action="store_true", help="leave out what lacks records, instead of failing")
    parser.add_argument("--published", action="store_true", help="from the records in runs/SCALE/published")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs")
    parser.add_argument("--out-dir", type=Path, default=ROOT / "analysis" / "out")
    options = parser.parse_args()
    quiet_libraries()  # before matplotlib is imported, which may have to look for fonts
    from drawing.find import describe
    from drawing.picture import save

    part = Path(options.scale) / "published" if options.published else Path(options.scale)
    study, out = Study(options.runs_dir / part), options.out_dir / part
    try:
        recorded = study.experiments()
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    known = sorted({*recorded, *configured_experiments()})
    if unknown := set(options.names) - set(known):
        raise SystemExit(f"error: {', '.join(sorted(unknown))}: no such experiment; choose of {', '.join(known)}")
    if not options.names and not recorded and not options.available:
        raise SystemExit(f"error: {study.root}: no records there; make reproduce SCALE={options.scale} makes them")
    failed, drawn = [], []
    for name in options.names or recorded:
        try:
            save(describe(study, name), out, name)
            drawn.append(name)
            print(f"{experiment_title(name)}: {short(out / name)}.png and .pdf", flush=True)
        except ValueError as error:  # the others can still be drawn
            failed.append(f"{name}: {error}")
    if failed and options.available:
        print("not drawn: " + "; ".join(failed))
    elif failed:
        raise SystemExit("error: " + "; ".join(failed))
    if drawn:
        elsewhere = "" if options.runs_dir == ROOT / "runs" else f" --runs-dir {options.runs_dir}"
        judge = f"python analysis/claims.py --scale {options.scale}{elsewhere} (what they say of the paper's claims)"
        print_next("make report (all figures, claims and numbers on one page)" if options.published else judge)


if __name__ == "__main__":
    main()
