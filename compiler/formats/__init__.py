"""Readers and writers of weight files: the GGUF container, Hugging Face folders, and every ternary block format.

One file a format. Nothing here knows IR: what is read is a `Ternary` (or plain numpy), what is written is bytes.
"""
