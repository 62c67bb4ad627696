"""Decoders with ternary weights: from GGUF files and Hugging Face folders to `dense` and `ternary` operations.

`config.py` reads what the model is, `names.py` what its tensors are called, `matrices.py` makes weights of them,
`graph.py` the module, `tokenizer.py` what text needs.
"""
