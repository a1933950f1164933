"""Make docs/figures/leet.svg: what LEET, W&B's viewer for the terminal, shows of the published runs.

LEET draws on a terminal only, so tmux lends it one (130 columns, 34 lines), presses keys and copies the screen:

    .venv/bin/python -m pma.replay scale=cpu published=true tracking.mode=offline
    .venv/bin/python dev/leet_picture.py
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "wandb leet runs/cpu/wandb"
COLUMNS, LINES = 130, 34
KEYS = ("]", "Down", "Space")  # hide the overview, go down, add the second run to the charts
# rich's own frame asks a server for a font; this one takes what is there.
FRAME = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<title>LEET, the terminal viewer of W&amp;B, with two runs of the published records</title>
<style>
.{unique_id}-matrix {{ font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: {char_height}px;
  line-height: {line_height}px; }}
.{unique_id}-title {{ font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 18px; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def screen(folder: Path) -> str:
    """LEET's screen, with the codes of its colours; the folder's own path is cut from it.

    Args:
        folder: that `runs` lies in.
    """
    tmux = ["tmux", "-L", f"leet-{os.getpid()}", "-f", "/dev/null"]
    size = ["-x", str(COLUMNS), "-y", str(LINES)]
    with tempfile.TemporaryDirectory() as settings:  # LEET keeps which panes were open
        quiet = f"WANDB_CONFIG_DIR={settings} WANDB_ERROR_REPORTING=false COLORTERM=truecolor"
        leet = f"cd {folder} && {quiet} {ROOT}/.venv/bin/{COMMAND}"
        subprocess.run([*tmux, "new-session", "-d", *size, leet], check=True)
        try:
            time.sleep(8)
            for key in KEYS:
                subprocess.run([*tmux, "send-keys", key], check=True)
                time.sleep(1)
            time.sleep(2)
            copy = subprocess.run([*tmux, "capture-pane", "-e", "-p"], check=True, capture_output=True, text=True)
        finally:
            subprocess.run([*tmux, "kill-server"], check=False)
    path = "runs/cpu/wandb"
    whole = f"{folder.resolve()}/{path}"
    return copy.stdout.replace(whole, path.ljust(len(whole)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make the picture of LEET.")
    parser.add_argument("--folder", type=Path, default=ROOT, help="where runs/cpu/wandb lies")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures" / "leet.svg")
    options = parser.parse_args()
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)
    console.print(Text.from_ansi(screen(options.folder)))
    picture = console.export_svg(title=COMMAND, code_format=FRAME, unique_id="leet")
    options.out.write_text("\n".join(line.rstrip() for line in picture.splitlines()) + "\n", encoding="utf-8")
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB; look at it before you publish it")


if __name__ == "__main__":
    main()
