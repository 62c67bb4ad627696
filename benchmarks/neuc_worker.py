"""The child process that runs one compiled decoder in neuc and is told over a pipe what to time; see `engines.py`.

It uses what anybody uses: `neuc.runtime.generation`. A decoder is loaded for each number of threads asked for; their
weights are the same pages of the same file.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from worker_pipe import serve

from neuc.errors import Error
from neuc.runtime.cpu_features import host_cpu_name, host_features
from neuc.runtime.generation import CHUNK, Decoder, load_decoder

_SHOWN = ("avx2", "fma", "f16c", "avx512f", "avx512vbmi", "avx512vnni", "avxvnni", "amx-int8")


class Session:
    """One model file and its decoders, by number of threads."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._path = request["model"]
        self._options = {"context": request["capacity"], "chunk": request.get("chunk", CHUNK)}
        self._decoders: dict[int, Decoder] = {}
        self._decoder(request["threads"])

    def facts(self) -> dict[str, Any]:
        """What is printed about it."""
        present = host_features()
        flags = " | ".join(f"{name} = {int(name in present)}" for name in _SHOWN)
        return {"system": f"{host_cpu_name()}: {flags}", "options": self._options}

    def prefill(self, tokens: int, threads: int) -> dict[str, Any]:
        """Seconds of `tokens` tokens from an empty cache."""
        decoder = self._decoder(threads)
        decoder.reset()
        ids = self._tokens(decoder, tokens)
        start = time.perf_counter()
        decoder.prefill(ids)
        return {"seconds": time.perf_counter() - start}

    def decode(self, context: int, tokens: int, threads: int) -> dict[str, Any]:
        """Seconds of each of `tokens` tokens, one at a time, after `context` tokens."""
        decoder = self._decoder(threads)
        if decoder.position != context:
            self.prefill(context, threads)
        taken: list[float] = []
        for token in self._tokens(decoder, tokens, context).tolist():
            start = time.perf_counter()
            decoder.decode(token)
            taken.append(time.perf_counter() - start)
        decoder.truncate(context)
        return {"seconds": sum(taken), "each": taken}

    def _decoder(self, threads: int) -> Decoder:
        if threads not in self._decoders:
            self._decoders[threads] = load_decoder(self._path, threads=threads, **self._options)
        return self._decoders[threads]

    @staticmethod
    def _tokens(decoder: Decoder, count: int, start: int = 0) -> np.ndarray:
        return np.arange(start, start + count) * 7919 % decoder.facts.vocab


if __name__ == "__main__":
    serve(Session, Error)
