"""Job states: Slurm's (which run, which have ended, which failed), and the two that only the ledger has."""

from __future__ import annotations

WAITING = frozenset({"PENDING", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT", "CONFIGURING"})
RUNNING = frozenset({"RUNNING", "SUSPENDED", "COMPLETING", "STAGE_OUT", "STOPPED", "SIGNALING", "POWER_UP_NODE"})
FAILED = frozenset(
    {"FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "LAUNCH_FAILED", "RECONFIG_FAIL"}
)
"""Ended without a result, through no wish of the user: what a report calls failed."""
AGAIN = frozenset({"REQUEUED", "NODE_FAIL", "PREEMPTED", "RESIZING", "BOOT_FAIL"})
"""Ends of a run after which the same job may go on under the same id."""
ENDED = FAILED | AGAIN | frozenset({"COMPLETED", "CANCELLED", "REVOKED"})
ALL = WAITING | RUNNING | ENDED

IDLE, NO_RECORD = "IDLE", "NO_RECORD"
"""None of Slurm's: what a row of the ledger says that comes from segments alone, of no job or of one without a record."""
OWN = (IDLE, NO_RECORD)
"""Such rows are made anew whenever their day is."""
IDLE_PROJECT = "(idle)"
"""The project of rows in the state IDLE."""
