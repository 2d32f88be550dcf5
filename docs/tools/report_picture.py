"""Draws docs/report.svg: the demo's report as a terminal shows it.

usage: python docs/tools/report_picture.py docs/report.svg
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text


def main(path: Path) -> None:
    """Runs the command and draws what it printed; fonts are those of the reader's machine."""
    done = subprocess.run([sys.executable, "-m", "slurm_energy", "demo"], capture_output=True, text=True, check=True)
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    console = Console(record=True, width=98, file=io.StringIO())  # nothing is shown here
    console.print(Text("$ senergy report --project lisa", style="bold green"))
    for line in lines[:48]:
        title = bool(line) and not line.startswith(" ") and "  " not in line and not line.endswith(".")
        console.print(Text(line, style="bold" if title else ""))
    svg = console.export_svg(title="senergy report --project lisa")
    svg = svg.replace("<text class", '<text xml:space="preserve" class')
    path.write_text(
        re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code, monospace", "monospace")
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
