"""What a report cannot do."""

from __future__ import annotations


class ReportError(Exception):
    """The report asked for cannot be made; the message says what there is instead."""


class NoDays(ReportError):
    """The ledger has no day of those asked for."""
