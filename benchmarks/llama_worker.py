"""The child process that runs one model in llama.cpp or ik_llama.cpp and is told over a pipe what to time.

It runs in the peer's own Python (standard library and the peer's ctypes bindings: `llama_cpp` or `ik_llama_cpp`), so it
imports nothing of neuc. Requests and answers are JSON, a line each, see `engines.py`. Token ids are made up: what they
are makes no difference to the time. Also quantises: what each peer's own quantiser makes is what it runs.

    python llama_worker.py llama_cpp|ik_llama_cpp
    python llama_worker.py ik_llama_cpp quantize in.gguf out.gguf --type 337 --head 14
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import os
import time
from typing import Any

from worker_pipe import serve

_FLASH_ATTENTION_ON = 1
VOCABULARY = 100_000
"""Token ids are below this; every model here has more."""


class IkQuantizeParams(ctypes.Structure):
    """`llama_model_quantize_params` of ik_llama.cpp, which its bindings leave out."""

    _fields_ = [
        ("nthread", ctypes.c_int32),
        *((name, ctypes.c_int) for name in ("ftype", "output_tensor_type", "token_embedding_type")),
        *((f"attn_{name}_type", ctypes.c_int) for name in ("q", "k", "v", "qkv", "output")),
        *((f"ffn_{name}_type", ctypes.c_int) for name in ("gate", "down", "up", "gate_inp")),
        *((name, ctypes.c_bool) for name in ("allow_requantize", "quantize_output_tensor", "only_copy", "pure")),
        *((name, ctypes.c_bool) for name in ("keep_split", "ignore_imatrix_rules", "only_repack", "dry_run")),
        ("partial_requant", ctypes.c_bool),
        *((name, ctypes.c_void_p) for name in ("imatrix", "kv_overrides", "custom_quants", "repack_pattern")),
    ]


class Peer:
    """One of the two libraries, whose interfaces differ in names and in structures.

    Attributes:
        api: the ctypes bindings.
        ik: whether it is ik_llama.cpp.
    """

    def __init__(self, name: str) -> None:
        self.ik = name == "ik_llama_cpp"
        # Not the packages' top levels, which import what is not needed here.
        self.api: Any = importlib.import_module("ik_llama_cpp._ctypes_api" if self.ik else "llama_cpp.llama_cpp")
        self.lib: Any = getattr(self.api, "_lib")  # noqa: B009 (pyright)
        self._log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(_log)
        self.lib.llama_log_set.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        self.lib.llama_log_set.restype = None
        self.lib.llama_log_set(ctypes.cast(self._log, ctypes.c_void_p), None)
        self.api.llama_backend_init()

    def system(self) -> str:
        """The library's own line on the instruction sets it was built for."""
        self.lib.llama_print_system_info.restype = ctypes.c_char_p
        return self.lib.llama_print_system_info().decode()

    def quantize(self, source: str, target: str, ftype: int, head: int, threads: int) -> None:
        """Quantise with the peer's own quantiser; `head` is the type of the embedding and of the output matrix."""
        kind = IkQuantizeParams if self.ik else self.api.llama_model_quantize_params
        defaults, run = self.lib.llama_model_quantize_default_params, self.lib.llama_model_quantize
        defaults.restype, defaults.argtypes = kind, []
        run.restype, run.argtypes = ctypes.c_uint32, [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(kind)]
        params = defaults()
        params.nthread, params.ftype = threads, ftype
        params.output_tensor_type = params.token_embedding_type = head
        params.allow_requantize = True
        if run(source.encode(), target.encode(), ctypes.byref(params)):
            raise RuntimeError(f"{source}: cannot be quantised to type {ftype}")

    def load(self, path: str, options: dict[str, Any]) -> Any:
        """A model; `options` are fields of `llama_model_params`."""
        params = self.api.llama_model_default_params()
        params.n_gpu_layers = 0
        _set(params, options)
        model = self.api.llama_model_load_from_file(path.encode(), params)
        if not model:
            raise RuntimeError(f"{path}: the peer cannot load it")
        return model

    def context(self, model: Any, threads: int, capacity: int, options: dict[str, Any]) -> Any:
        """A context for one sequence; `options` are fields of `llama_context_params`."""
        params = self.api.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = capacity, 512, 512
        params.n_threads = params.n_threads_batch = threads
        _set(params, options)
        context = self.api.llama_init_from_model(model, params)
        if not context:
            raise RuntimeError("the peer cannot make a context")
        return context

    def keep(self, context: Any, tokens: int) -> None:
        """Forget what the caches hold from position `tokens` on."""
        if self.ik:
            remove = self.lib.llama_kv_cache_seq_rm
            remove.argtypes, remove.restype = [ctypes.c_void_p, *[ctypes.c_int32] * 3], ctypes.c_bool
            remove(context, 0, tokens, -1)
        else:
            self.api.llama_memory_seq_rm(self.api.llama_get_memory(context), 0, tokens, -1)

    def step(self, context: Any, tokens: list[int], position: int) -> None:
        """Run new tokens after `position` old ones, and wait for the last one's logits."""
        count = len(tokens)
        ids = (ctypes.c_int32 * count)(*tokens)
        get_one = self.lib.llama_batch_get_one
        get_one.restype = self.api.llama_batch
        if self.ik:
            get_one.argtypes = [ctypes.POINTER(ctypes.c_int32), *[ctypes.c_int32] * 3]
            batch = get_one(ids, count, position, 0)
        else:
            get_one.argtypes = [ctypes.POINTER(ctypes.c_int32), ctypes.c_int32]
            batch = get_one(ids, count)
        if self.api.llama_decode(context, batch):
            raise RuntimeError(f"the peer cannot run {count} tokens at {position}")
        self.lib.llama_synchronize(ctypes.c_void_p(context))
        if not self.api.llama_get_logits_ith(context, -1):
            raise RuntimeError("the peer gives no logits")


class Session:
    """A loaded model with one context, whose number of threads changes from request to request."""

    def __init__(self, peer: Peer, request: dict[str, Any]) -> None:
        self.peer = peer
        self.model = peer.load(request["model"], request.get("model_options", {}))
        self.context = peer.context(
            self.model, request["threads"], request["capacity"], request.get("context_options", {})
        )
        self.most_threads: int = request["threads"]
        self.held = 0

    def facts(self) -> dict[str, Any]:
        """What is printed and checked about it."""
        return {"system": self.peer.system()}

    def prefill(self, tokens: int, threads: int) -> dict[str, Any]:
        """Seconds of `tokens` tokens from an empty cache."""
        self._threads(threads)
        self.peer.keep(self.context, 0)
        ids = _tokens(tokens)
        start = time.perf_counter()
        self.peer.step(self.context, ids, 0)
        seconds = time.perf_counter() - start
        self.held = tokens
        return {"seconds": seconds}

    def decode(self, context: int, tokens: int, threads: int) -> dict[str, Any]:
        """Seconds of each of `tokens` tokens, one at a time, after `context` tokens."""
        if self.held != context:
            self.prefill(context, self.most_threads)
        self._threads(threads)
        taken: list[float] = []
        for position in range(context, context + tokens):
            start = time.perf_counter()
            self.peer.step(self.context, _tokens(1, position), position)
            taken.append(time.perf_counter() - start)
        self.peer.keep(self.context, context)
        return {"seconds": sum(taken), "each": taken}

    def _threads(self, threads: int) -> None:
        self.peer.lib.llama_set_n_threads(ctypes.c_void_p(self.context), threads, threads)


def _tokens(count: int, start: int = 0) -> list[int]:
    return [(start + index) * 7919 % VOCABULARY for index in range(count)]


def _set(params: Any, options: dict[str, Any]) -> None:
    for name, value in options.items():
        if name not in {field[0] for field in params._fields_}:
            raise RuntimeError(f"{type(params).__name__} has no field {name}")
        setattr(params, name, value)


def _log(level: int, text: bytes, _user: int) -> None:
    if level >= 3:  # warnings and errors; 5 continues a line of any level
        os.write(2, text)


def main() -> None:
    """Serve, or quantise."""
    parser = argparse.ArgumentParser(
        description="one model in llama.cpp or ik_llama.cpp, told over a pipe what to time"
    )
    parser.add_argument("peer", choices=("llama_cpp", "ik_llama_cpp"))
    parser.add_argument("files", nargs="*", help="quantize IN.gguf OUT.gguf")
    parser.add_argument("--type", type=int, help="the peer's llama_ftype")
    parser.add_argument("--head", type=int, help="the peer's ggml_type of embedding and output")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    peer = Peer(options.peer)
    if not options.files:
        serve(lambda request: Session(peer, request), RuntimeError)
    elif len(options.files) == 3 and options.files[0] == "quantize" and None not in (options.type, options.head):
        peer.quantize(options.files[1], options.files[2], options.type, options.head, options.threads)
    else:
        parser.error("quantize takes IN.gguf OUT.gguf --type N --head N")


if __name__ == "__main__":
    main()
