"""Slurm's job states: which run, which have ended, which failed."""

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
