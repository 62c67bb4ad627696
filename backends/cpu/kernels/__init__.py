"""Kernel families, one a file: each a frozen dataclass that builds one llvm-dialect function."""
