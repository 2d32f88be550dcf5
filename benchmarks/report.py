"""`senergy report --project` on a ledger of 2 million allocations against bare Python with DuckDB reading the totals.

usage: python benchmarks/report.py [RUNS]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from harness import PYTHON, SENERGY, in_turns, run, tell
from make_log import make_log

HERE = Path(__file__).parent
PROJECT = "acct042"


def main(runs: int) -> int:
    """Prints the figures; 1 where the ratio is over its limit."""
    with tempfile.TemporaryDirectory(prefix="senergy-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        log, ledger = folder / "log-2m.txt", str(folder / "ledger")
        make_log(2_000_000, log)
        run([*SENERGY, "aggregate", "--quiet", "--ledger", ledger, "--from", str(log)])
        ours = [*SENERGY, "report", "--ledger", ledger, "--project", PROJECT]
        floor = [PYTHON, str(HERE / "floor_report.py"), ledger, PROJECT]
        good = tell("report --project, 2 million allocations", *in_turns(ours, floor, runs), 2)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 11))
