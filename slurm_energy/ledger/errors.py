"""What can be wrong with a ledger."""


class LedgerError(Exception):
    """The ledger cannot be read or written; the message says what to do next."""
