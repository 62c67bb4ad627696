"""How each ONNX operator becomes `dense` operations: one file a family, each with its table `RULES`.

`builder.py` is what rules build with; `registry.py` puts the tables together; the pass is `lower_onnx_to_dense.py`.
"""
