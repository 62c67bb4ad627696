"""Layouts of packed ternary weights, and the numpy code that packs them. No kernels, no IR."""
