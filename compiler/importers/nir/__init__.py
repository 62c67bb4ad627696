"""Reading spiking networks in the Neuromorphic Intermediate Representation (NIR 1.0), from HDF5 or from memory.

Pedersen et al., "Neuromorphic intermediate representation: a unified instruction set for interoperable brain-inspired
computing", Nature Communications 15, 2024. `importer.py` is the way in.
"""
