"""Whether a spiking network fits a neuromorphic chip: limits of chips, what a network needs, and the comparison."""
