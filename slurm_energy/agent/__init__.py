"""The node agent: one process per node that reads power counters, splits them between jobs and keeps hourly segments.

Nothing here imports pandas, duckdb, ibis, pyarrow, typer or rich: this runs as root on every compute node.
"""
