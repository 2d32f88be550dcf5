"""What Slurm says: job records from sacct, saved sacct output and pyslurm, and Slurm's own formats."""
