"""Analog crossbars as a target: options, faults, tiles on arrays, schedules. Simulated tiles are CPU kernels."""
