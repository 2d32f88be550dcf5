"""The ledger: days of attributed, priced job energy in Parquet; written by one aggregator, read by everybody."""
