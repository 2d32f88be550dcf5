"""Writes the golden reports anew, by the real command:  python tests/golden/regenerate.py

Look at the difference before it goes in: what changes here changes what people read and parse.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
REPORTS = {
    "demo.txt": ("demo",),
    "demo.md": ("report", "--project", "lisa", "--markdown"),
    "demo.json": ("report", "--project", "lisa", "--json"),
    **{
        f"by-{key}.{ending}": ("report", "--by", key, option)
        for key in ("project", "gpu", "month")
        for ending, option in (("parsable2", "--parsable2"), ("csv", "--csv"))
    },
}
"""File and the command that prints it; the reports are on the ledger of the demo's log."""


def reports() -> dict[str, str]:
    """What each command prints now."""
    with tempfile.TemporaryDirectory() as folder:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SENERGY_", "PYTHON"))}
        surroundings = {**kept, "HOME": folder, "XDG_STATE_HOME": folder, "TZ": "UTC"}
        (Path(folder) / "config.toml").write_text('[site]\ntimezone = "UTC"\n', encoding="utf-8")

        def run(*arguments: str) -> str:
            done = subprocess.run(
                [str(Path(sys.executable).with_name("senergy")), *arguments], env=surroundings, cwd=folder,
                stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True,
            )  # fmt: skip
            return done.stdout.decode("utf-8")

        run("demo", "--write", "lisa.txt")
        config = ("--config", "config.toml")
        run("aggregate", "--from", "lisa.txt", "--profile", "strubell2019", "--quiet", *config)
        with ThreadPoolExecutor() as pool:
            texts = pool.map(lambda words: run(*words, *(config if "report" in words else ())), REPORTS.values())
            return dict(zip(REPORTS, texts, strict=True))


def main() -> None:
    for name, text in reports().items():
        # Rich pads its lines; editors and git strip that.
        lines = "".join(line.rstrip() + "\n" for line in text.splitlines())
        (HERE / name).write_text(lines.rstrip("\n") + "\n", encoding="utf-8")
        print(name)


if __name__ == "__main__":
    main()
