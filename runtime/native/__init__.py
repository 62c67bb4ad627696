"""Native execution: the generated SPMD driver, its thread pool, and the one door to llvmlite."""
