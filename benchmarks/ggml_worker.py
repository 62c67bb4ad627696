"""The child process that times one matrix product of a ggml library (llama.cpp's, or ik_llama.cpp's) through ctypes.

`model` of its engine is the library, `model_options` the id of the type of weights. Weights are what the library's own
quantiser makes of random ternary floats; one product is one `ggml_mul_mat` in a graph of many, so that what a graph
costs counts little, and its rounding of activations and its barrier are in the time, as in its engines. It runs in the
peer's own Python and imports nothing of neuc.
"""

from __future__ import annotations

import ctypes
import random
import time
from array import array
from typing import Any

from worker_pipe import serve

_F32 = 0
_SLACK = 64 << 20
"""Bytes for results, graphs and scratch memory, beside weights."""
_NODES = 2000
"""Products of a graph at most: what `ggml_new_graph` has room for."""
_FEATURES = ("avx2", "fma", "f16c", "avx512", "avx512_vbmi", "avx512_vnni", "avx_vnni")


class _Params(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


class Library:
    """A ggml library, for one type of weights."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.lib = ctypes.CDLL(request["model"], ctypes.RTLD_GLOBAL)
        self.type = int(request["model_options"]["type"])
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        for name, result, arguments in (
            ("ggml_init", pointer, [_Params]),
            ("ggml_free", None, [pointer]),
            ("ggml_new_tensor_2d", pointer, [pointer, ctypes.c_int, number, number]),
            ("ggml_get_data", pointer, [pointer]),
            ("ggml_row_size", ctypes.c_size_t, [ctypes.c_int, number]),
            ("ggml_quantize_chunk", ctypes.c_size_t, [ctypes.c_int, pointer, pointer, *[number] * 3, pointer]),
            ("ggml_mul_mat", pointer, [pointer, pointer, pointer]),
            ("ggml_new_graph", pointer, [pointer]),
            ("ggml_build_forward_expand", None, [pointer, pointer]),
            ("ggml_graph_compute_with_ctx", ctypes.c_int, [pointer, pointer, ctypes.c_int]),
        ):
            function = getattr(self.lib, name)
            function.restype, function.argtypes = result, arguments
        if hasattr(self.lib, "ggml_cpu_init"):
            self.lib.ggml_cpu_init()
        self._made: tuple[tuple[int, ...], int, int, int] | None = None

    def facts(self) -> dict[str, Any]:
        """Its instruction sets, as llama.cpp prints them."""
        flags = {name: getattr(self.lib, f"ggml_cpu_has_{name}")() for name in _FEATURES}
        return {"system": " | ".join(f"{name.upper()} = {flag}" for name, flag in flags.items())}

    def multiply(self, rows: int, columns: int, tokens: int, threads: int, pool: int, products: int) -> dict[str, Any]:
        """Seconds of one of `products` products, or more, with copies of the weights that fill `pool` bytes."""
        key = (rows, columns, tokens, pool, products)
        if self._made is None or self._made[0] != key:
            if self._made is not None:
                self.lib.ggml_free(self._made[1])
            self._made = (key, *self._graph(*key))
            self.lib.ggml_graph_compute_with_ctx(self._made[1], self._made[2], threads)
        _, context, graph, count = self._made
        start = time.perf_counter()
        status = self.lib.ggml_graph_compute_with_ctx(context, graph, threads)
        seconds = time.perf_counter() - start
        if status:
            raise ValueError(f"ggml computes nothing: status {status}")
        return {"seconds": seconds / count, "weight_bytes": self._bytes(rows, columns)}

    def _bytes(self, rows: int, columns: int) -> int:
        return rows * self.lib.ggml_row_size(self.type, columns)

    def _graph(self, rows: int, columns: int, tokens: int, pool: int, products: int) -> tuple[int, int, int]:
        """A context, a graph in it and how many products it has."""
        nbytes, lib = self._bytes(rows, columns), self.lib
        copies = max(1, pool // nbytes)
        count = min(_NODES, max(copies, products))
        results = count * (4 * tokens * rows + 1024)
        context = lib.ggml_init(
            _Params(copies * (nbytes + 1024) + results + 8 * tokens * columns + _SLACK, None, False)
        )
        x = lib.ggml_new_tensor_2d(context, _F32, columns, tokens)
        numbers = array("f", (random.gauss(0, 1) for _ in range(columns)))
        for token in range(tokens):
            ctypes.memmove(lib.ggml_get_data(x) + 4 * columns * token, numbers.buffer_info()[0], 4 * columns)
        weights = [lib.ggml_new_tensor_2d(context, self.type, columns, rows) for _ in range(copies)]
        # Some random rows, again and again: times do not depend on what weights are.
        some = min(rows, 256)
        ternary = array("f", random.choices((-0.5, 0.0, 0.5), k=some * columns))
        floats = array("f", bytes(0))
        for first in range(0, rows, some):
            floats.extend(ternary[: min(some, rows - first) * columns])
        address = floats.buffer_info()[0]
        lib.ggml_quantize_chunk(self.type, address, lib.ggml_get_data(weights[0]), 0, rows, columns, None)
        for copy in weights[1:]:
            ctypes.memmove(lib.ggml_get_data(copy), lib.ggml_get_data(weights[0]), nbytes)
        graph = lib.ggml_new_graph(context)
        for number in range(count):
            lib.ggml_build_forward_expand(graph, lib.ggml_mul_mat(context, weights[number % copies], x))
        return context, graph, count


if __name__ == "__main__":
    serve(Library, ValueError, ("multiply",))
