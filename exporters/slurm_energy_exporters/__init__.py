"""Prometheus exporters: live power of a node (from the agent's socket), and the ledger's totals. Neither runs as root."""
