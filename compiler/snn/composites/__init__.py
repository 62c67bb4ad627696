"""Blocks that are more than neurons and synapses, as functions that write operations: attention of spikes, scans."""
