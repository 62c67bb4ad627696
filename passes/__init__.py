"""Target-independent transformations and analyses, one a file, each usable from ``neuc opt -p``."""
