"""How each `dense`, `ternary` and `lut` operation becomes launches, one file a family; `lowering.py` finds them."""
