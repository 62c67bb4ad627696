"""Routing of channels through the tiles' switches."""
