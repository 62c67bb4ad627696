"""Placement of dataflow graphs on the tiles of an array."""
