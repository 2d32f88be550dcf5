"""Puts this folder on the path of the tests: `from sim.sysfs import SimNode`."""
