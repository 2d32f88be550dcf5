"""`senergy aggregate` of 2 million allocations against bare DuckDB, its memory, and how it grows from 200 thousand.

usage: python benchmarks/aggregate.py [RUNS]
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from harness import PYTHON, SENERGY, in_turns, run, tell
from make_log import make_log

HERE = Path(__file__).parent


def main(runs: int) -> int:
    """Prints the figures; 1 where one is over its limit."""
    with tempfile.TemporaryDirectory(prefix="senergy-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        big, small = folder / "log-2m.txt", folder / "log-200k.txt"
        make_log(2_000_000, big)
        make_log(200_000, small)

        def clean() -> None:
            shutil.rmtree(folder / "ledger", ignore_errors=True)
            shutil.rmtree(folder / "floor", ignore_errors=True)

        ours_command = [*SENERGY, "aggregate", "--quiet", "--ledger", str(folder / "ledger"), "--from", str(big)]
        floor_command = [PYTHON, str(HERE / "floor_aggregate.py"), str(big), str(folder / "floor")]
        ours, floor = in_turns(ours_command, floor_command, runs, clean)
        good = tell("aggregate, 2 million allocations", ours, floor, 2)
        peak = max(one.peak_mb for one in ours)
        print(f"memory: {peak:.0f} MB; wanted: under 4096")
        clean()
        again = [run([*ours_command[:-1], str(small)]) for _ in range(runs + 1)][1:]
        growth = statistics.median(r.wall_s for r in ours) / statistics.median(r.wall_s for r in again)
        print(
            f"growth from 200 thousand to 2 million rows: {growth:.1f} times the time for 10 times the rows; wanted: at most 10"
        )
    return 0 if good and peak < 4096 and growth <= 10 else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
