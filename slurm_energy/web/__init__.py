"""`senergy web`: a page with live watts and the ledger's projects, for people without Grafana. Standard library only."""
