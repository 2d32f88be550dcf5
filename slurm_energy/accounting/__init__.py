"""What energy costs: the equations. Pure functions of numbers, no input or output, nothing of ours but units."""
