"""Draw figures and tables from records.

python analysis/draw.py --scale cpu                  everything, from your own records in runs/cpu
python analysis/draw.py --scale cpu figure_4         one
python analysis/draw.py --scale cpu --published      from the published records in runs/cpu/published
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import style

NAMES = (
    *(f"figure_{number}" for number in range(1, 10)),
    "table_1",
    "interval_by_size",
    "equation_15",
    "learning_rate",
)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Draw figures and tables from records.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; none draws all")
    parser.add_argument("--scale", default="cpu")
    parser.add_argument("--available", action="store_true", help="leave out what has no records yet")
    parser.add_argument("--published", action="store_true", help="from the records in runs/SCALE/published")
    parser.add_argument("--runs-dir", type=Path, default=style.HERE.parent / "runs")
    parser.add_argument("--out-dir", type=Path, default=style.HERE / "out")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        raise SystemExit(f"error: {', '.join(sorted(unknown))}: choose of {', '.join(NAMES)}")
    part = Path(options.scale) / "published" if options.published else Path(options.scale)
    source, out = style.Source(options.runs_dir / part), options.out_dir / part
    failed = []
    for name in options.names or NAMES:
        module = importlib.import_module(name)
        try:
            style.save_all(module.draw(source), out, name)
            if hasattr(module, "save_text"):
                module.save_text(source, out)
        except ValueError as error:  # the others can still be drawn
            failed.append(f"{name}: {error}")
    if failed and options.available:
        print("not drawn: " + "; ".join(failed))
    elif failed:
        raise SystemExit("error: " + "; ".join(failed))


if __name__ == "__main__":
    main()
