"""The paper's case study as a Slurm accounting log: the main job of the product, without a cluster."""
