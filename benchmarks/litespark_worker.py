"""The child process that runs one model in litespark-inference and is told over a pipe what to time; see `engines.py`.

It runs in the peer's own Python (`litespark_inference.torchless`: numpy, and C++ kernels that are built when it is
installed) and imports nothing of neuc. The peer loads its models from Hugging Face by name; here `model` is a
`config.json` in their form, and weights of that shape are random, packed as the peer packs them.

Threads: those of its kernels (OpenMP) are set, and the process keeps to as many processors, for numpy's own.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import time
from itertools import product
from pathlib import Path
from typing import Any

from worker_pipe import serve

VOCABULARY = 100_000
CHUNK = 64
"""Tokens of a prompt at a time: for more, the kernels of 1.0.3 return without multiplying."""
_BUILT_WITH = "AVX2 = 1 | FMA = 1 | F16C = 1 | AVX512 = 1 | AVX512_VBMI = 1 | AVX512_VNNI = 1"
"""What `setup.py` of 1.0.3 compiles its AVX-512 kernel for; the library itself says no more than the kernel's name."""


class Session:
    """A model of random weights and one sequence."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._np: Any = importlib.import_module("numpy")
        self._kernel: Any = importlib.import_module("litespark_inference.torchless.kernel")
        self._runtime: Any = importlib.import_module("litespark_inference.torchless.runtime")
        self._classes: Any = importlib.import_module("litespark_inference.torchless.model")
        self._random = self._np.random.default_rng(0)
        options = request.get("model_options", {})
        self._tiles = bool(options.get("amx", False))
        self._model = self._make(json.loads(Path(request["model"]).read_text()), options.get("head", "int8"))
        self._state = self._runtime.init_state(self._model, request["capacity"])
        self._processors = sorted(os.sched_getaffinity(0))
        self._held = 0
        self._openmp = ctypes.CDLL("libgomp.so.1")

    def facts(self) -> dict[str, Any]:
        """What is printed and checked about it."""
        name = Path(self._kernel.ensure_built()).name
        if "avx512" not in name:
            raise RuntimeError(f"{name} is not the AVX-512 kernel")
        sizes = self._model.tensor_bytes()
        system = f"{name}: {_BUILT_WITH} | AMX_INT8 = {int(self._tiles and self._kernel.has_amx())}"
        return {"system": system, "weight_bytes": sizes["packed_weights"] + sizes["embedding"]}

    def prefill(self, tokens: int, threads: int) -> dict[str, Any]:
        """Seconds of `tokens` tokens from an empty cache."""
        self._threads(threads)
        self._state.pos = 0
        ids, logits = _tokens(tokens), None
        start = time.perf_counter()
        for first in range(0, tokens, CHUNK):
            logits = self._runtime.forward_prefill(self._model, self._state, ids[first : first + CHUNK])
        seconds = time.perf_counter() - start
        if not self._np.isfinite(logits).all():
            raise RuntimeError("logits that are no numbers")
        self._held = tokens
        return {"seconds": seconds}

    def decode(self, context: int, tokens: int, threads: int) -> dict[str, Any]:
        """Seconds of each of `tokens` tokens, one at a time, after `context` tokens."""
        if self._held != context:
            self.prefill(context, threads)
        self._threads(threads)
        taken: list[float] = []
        for token in _tokens(tokens, context):
            start = time.perf_counter()
            self._runtime.forward_one(self._model, self._state, token)
            taken.append(time.perf_counter() - start)
        self._state.pos = context
        return {"seconds": sum(taken), "each": taken}

    def _threads(self, threads: int) -> None:
        os.sched_setaffinity(0, self._processors[:threads])
        self._openmp.omp_set_num_threads(threads)

    def _make(self, facts: dict[str, Any], head: str) -> Any:
        if head not in ("int8", "int4"):
            raise RuntimeError(f"a head is int8 or int4, not {head!r}")
        hidden, inner, vocabulary = (facts[name] for name in ("hidden_size", "intermediate_size", "vocab_size"))
        config = self._classes.BitNetConfig(
            hidden_size=hidden,
            num_layers=facts["num_hidden_layers"],
            num_heads=facts["num_attention_heads"],
            num_kv_heads=facts["num_key_value_heads"],
            intermediate_size=inner,
            vocab_size=vocabulary,
            max_position_embeddings=facts["max_position_embeddings"],
            rms_norm_eps=facts["rms_norm_eps"],
            rope_theta=facts["rope_theta"],
        )
        narrow = hidden // config.num_heads * config.num_kv_heads
        shapes = {"q": (hidden, hidden), "k": (narrow, hidden), "v": (narrow, hidden), "o": (hidden, hidden)}
        shapes |= {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}
        sizes = {"input_norm": hidden, "post_attn_norm": hidden, "attn_sub_norm": hidden, "ffn_sub_norm": inner}
        first = {name: self._packed(*shape) for name, shape in shapes.items()}
        layers = [
            self._classes.PackedLayer(
                **{f"{name}_proj": self._projection(first[name].copy(), *shape) for name, shape in shapes.items()},
                **{name: self._ones(size) for name, size in sizes.items()},
            )
            for _ in range(config.num_layers)
        ]
        field, kind, columns = (
            ("embed_int4", "uint8", hidden // 2) if head == "int4" else ("embed_int8", "int8", hidden)
        )
        levels = self._np.frombuffer(self._random.bytes(vocabulary * columns), kind).reshape(vocabulary, columns)
        scales = self._np.full(vocabulary, 1e-3, "float32")
        return self._classes.PackedBitNetModel(
            config, None, self._ones(hidden), "neon", layers, **{field: levels, "embed_scale": scales}
        )

    def _packed(self, rows: int, columns: int) -> Any:
        """Four codes of 0, 1, 2 a byte."""
        codes = self._np.array([a | b << 2 | c << 4 | d << 6 for a, b, c, d in product(range(3), repeat=4)], "uint8")
        return codes[self._random.integers(0, len(codes), (rows, columns // 4))]

    def _projection(self, packed: Any, rows: int, columns: int) -> Any:
        tiled = None
        if self._tiles:
            tiled = self._np.empty((columns // 4, rows, 4), "int8")
            self._kernel.transpose_packed_to_amx_vnni(packed, tiled, rows, columns)
        sums = self._np.zeros(rows, "int32")
        return self._classes.PackedProjection(packed, sums, 0.02, columns, rows, w_amx=tiled)

    def _ones(self, size: int) -> Any:
        """Gains of one in bfloat16, as models have them."""
        return self._np.full(size, 0x3F80, "uint16")


def _tokens(count: int, start: int = 0) -> list[int]:
    return [(start + index) * 7919 % VOCABULARY for index in range(count)]


if __name__ == "__main__":
    serve(Session, RuntimeError)
