"""Analog in-memory computing at run time: device models, wires, the crossbar program, and drawing conductances."""
