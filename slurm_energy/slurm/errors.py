"""What goes wrong between us and Slurm."""

from __future__ import annotations


class SourceError(Exception):
    """A job source cannot be read at all; the message names it and says what to do next."""
