"""Thermodynamic sampling units: chips of coupled random bits on a grid, simulated by the CPU's samplers."""
