"""One linear layer in onnxruntime (float, and MatMulNBits of 2, 4 and 8 bits) and in neuc, in turns.

    python benchmarks/onnxruntime_kernels.py [--shapes 2560x2560,6912x2560,2560x6912] [--tokens 1,128]
        [--threads 1,2] [--rounds 20] [--layers i2,t5,i4g32,i8g32] [--pool 256]

For one token, weights come from memory: each engine goes through a pool of copies larger than its share of any cache,
onnxruntime's with weights of their own (it keeps equal constants once). Many tokens stay with one copy. Every engine's
result is checked first: onnxruntime's against numpy in f32 (it rounds activations to 8 bits, as asked for with
accuracy_level 4), neuc's to the bit. Times are of the wall clock; a ratio is taken within each round.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import llvmlite.binding as llvmlite
import numpy as np
import onnxruntime
from limits import Spread
from linear_layers import Layer
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from team import Team

from neuc.backends.cpu.isa import Isa
from neuc.runtime.cpu_features import host_features

BLOCK = 128
"""Columns that share a scale in MatMulNBits: its fastest."""

LEAST_REPEATS = 4
"""Products in a burst, so that the start of threads does not matter; eight times as many of one token."""

_EIGHT_BIT_STEPS = 1 / 64
"""Largest error of a row's sum, relative to the rows' spread, that rounding activations to 8 bits explains."""


Floats = NDArray[np.float32]


class OnnxruntimeLayer:
    """A graph of copies of one layer, each with weights of its own; `bits` 32 is float.

    Attributes:
        copies: how many products one call computes.
    """

    def __init__(self, bits: int, rows: int, columns: int, tokens: int, threads: int, pool_bytes: int) -> None:
        nbytes = rows * columns * bits // 8
        self.copies = max(1, pool_bytes // nbytes) if tokens == 1 else 1
        random = np.random.default_rng(0)
        nodes: list[NodeProto] = []
        constants: list[TensorProto] = []
        dense = np.zeros((0, 0), np.float32)
        for copy in range(self.copies):
            made, values, dense = _node(bits, rows, columns, copy, random)
            nodes.append(made)
            constants += values
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [tokens, columns])
        outs = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, [tokens, rows]) for i in range(self.copies)]
        graph = helper.make_graph(nodes, "layer", [x], outs, constants)
        domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=domains, ir_version=10)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.force_spinning_stop", "1")  # between runs, others are measured
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._x = random.standard_normal((tokens, columns)).astype(np.float32)
        last = np.asarray(self._session.run(None, {"x": self._x})[-1])
        expected = self._x @ dense.T
        assert np.abs(last - expected).max() < _EIGHT_BIT_STEPS * np.abs(expected).max(), f"{bits} bits: wrong"

    def seconds(self) -> float:
        """Of one product."""
        times = 1 if self.copies > 1 else LEAST_REPEATS
        start = time.perf_counter()
        for _ in range(times):
            self._session.run(None, {"x": self._x})
        return (time.perf_counter() - start) / (self.copies * times)


def _node(
    bits: int, rows: int, columns: int, copy: int, random: np.random.Generator
) -> tuple[NodeProto, list[TensorProto], Floats]:
    """A node, its constants, and the weights they stand for, f32 [rows, columns]."""
    trits = random.integers(-1, 2, (rows, columns), np.int8)
    if bits == 32:
        dense = trits.astype(np.float32)
        weights = [numpy_helper.from_array(dense.T.copy(), f"w{copy}")]
        return helper.make_node("MatMul", ["x", f"w{copy}"], [f"y{copy}"]), weights, dense
    per_byte = 8 // bits
    codes = (
        (trits.astype(np.int16) + (1 << (bits - 1)))
        .astype(np.uint8)
        .reshape(rows, columns // BLOCK, BLOCK // per_byte, per_byte)
    )
    packed = np.bitwise_or.reduce(codes << (np.arange(per_byte, dtype=np.uint8) * bits), axis=3)
    scales = random.random((rows, columns // BLOCK), np.float32)
    node = helper.make_node(
        "MatMulNBits", ["x", f"w{copy}", f"s{copy}"], [f"y{copy}"], domain="com.microsoft",
        K=columns, N=rows, bits=bits, block_size=BLOCK, accuracy_level=4,
    )  # fmt: skip
    weights = [numpy_helper.from_array(packed, f"w{copy}"), numpy_helper.from_array(scales.reshape(-1), f"s{copy}")]
    return node, weights, trits * np.repeat(scales, BLOCK, axis=1)


def neuc_seconds(layer: Layer, team: Team) -> Callable[[], float]:
    """Seconds of one product, going through the layer's copies some at a time."""
    position, count = [0], LEAST_REPEATS * (8 if layer.pool.copies > 1 else 1)

    def burst() -> float:
        seconds = team.run(lambda thread: layer.run(position[0], count, thread, team.threads)) / count
        position[0] += count
        return seconds

    return burst


def report(options: argparse.Namespace, rows: int, columns: int, tokens: int, threads: int, isa: Isa) -> None:
    """Measure one case and print its lines."""
    pool, team = options.pool << 20, Team(threads)
    engines: dict[str, Callable[[], float]] = {}
    for text in options.layers.split(","):
        layer = Layer(text, rows, columns, tokens, isa, pool if tokens == 1 else 1)
        engines[f"neuc {text}"] = neuc_seconds(layer, team)
    for bits in (2, 4, 8, 32):
        name = "onnxruntime float" if bits == 32 else f"onnxruntime {bits} bits"
        engines[name] = OnnxruntimeLayer(bits, rows, columns, tokens, threads, pool).seconds
    samples: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(options.rounds + 1):
        for name, run in engines.items():
            seconds = run()
            if number:
                samples[name].append(seconds)
    first = next(iter(samples))
    print(
        f"{rows}x{columns}, {tokens} tokens, {threads} threads: microseconds, GOPS, and how often {first} fits into it"
    )
    for name, taken in samples.items():
        spread, ratio = Spread.of(taken), Spread.of([t / own for t, own in zip(taken, samples[first], strict=True)])
        gops = 2e-9 * rows * columns * tokens / spread.median
        times = f"{spread.median * 1e6:9.0f} ({spread.p10 * 1e6:.0f}..{spread.p90 * 1e6:.0f})"
        print(f"  {name:22}{times:26}{gops:8.0f}   {ratio.median:5.2f} ({ratio.p10:.2f}..{ratio.p90:.2f})", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="one linear layer in onnxruntime and in neuc, in turns")
    parser.add_argument("--shapes", default="2560x2560,6912x2560,2560x6912")
    parser.add_argument("--tokens", default="1,128")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--layers", default="i2,t5,i4g32,i8g32", help="neuc's layers, see linear_layers.py")
    parser.add_argument("--pool", type=int, default=256, help="megabytes of copies for one token")
    parser.add_argument("--without", default="", help="features neuc does without, such as amx-int8")
    options = parser.parse_args()
    llvmlite.initialize_native_target()
    llvmlite.initialize_native_asmprinter()
    isa = Isa.select(host_features() - set(options.without.split(",")))
    print(f"onnxruntime {onnxruntime.__version__}, neuc on {isa.name} with {', '.join(isa.features)}")
    for shape in options.shapes.split(","):
        rows, columns = (int(part) for part in shape.split("x"))
        for tokens in options.tokens.split(","):
            for threads in options.threads.split(","):
                report(options, rows, columns, int(tokens), int(threads), isa)


if __name__ == "__main__":
    main()
