"""The published tables of Strubell et al. 2019, recomputed: the check that the equations are the paper's."""
