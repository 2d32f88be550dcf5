"""Simulated power hardware whose counters move by a known law: sysfs trees and an NVML, for tests and benchmarks."""
