"""`senergy --help` and shell completion against a bare start of Python.

usage: python benchmarks/startup.py [RUNS]
"""

from __future__ import annotations

import os
import sys

from harness import PYTHON, SENERGY, in_turns, tell


def main(runs: int) -> int:
    """Prints the figures; 1 where a ratio is over its limit."""
    bare = [PYTHON, "-c", "pass"]
    good = tell("--help", *in_turns([*SENERGY, "--help"], bare, runs), 10)
    # What a shell runs for `senergy rep<TAB>`: Typer answers by environment variables.
    os.environ.update(_SENERGY_COMPLETE="complete_bash", COMP_WORDS="senergy rep", COMP_CWORD="1")
    code = "import sys; sys.argv = ['senergy']; from slurm_energy.cli import main; sys.exit(main())"
    completion = in_turns([PYTHON, "-c", code], bare, runs)
    return 0 if tell("completion", *completion, 10) and good else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 21))
