"""The language models as ONNX models, made from their committed parameters: needs onnx alone.

    python onnx_language_model.py ternary --to language_ternary.onnx

`tokens` i64 [batch, 64] -> `logits` f32 [batch, 64, 96]. The ternary one rounds activations to 8 bits in front of each
product, as it was trained; its twin is the same graph without.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PARAMETERS = Path(__file__).parent / "parameters"
KINDS = ("ternary", "float")
HEADS = 4
EPS = 1e-5
_MASKED = -1e9


class Graph:
    """Nodes of an ONNX graph in the making; each method returns the name of its result.

    Args:
        arrays: the parameters, as `train_language_model.py` writes them.
    """

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind.lower()}_{sum(node.op_type == kind for node in self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: np.ndarray | float) -> str:
        self.constants[name] = np.asarray(value, None if isinstance(value, np.ndarray) else np.float32)
        return name

    def parameter(self, name: str) -> str:
        return self.constant(name, self.arrays[name].astype(np.float32))

    def product(self, x: str, layer: str) -> str:
        """A layer behind its RMSNorm; activations are rounded where its weights are ternary."""
        mean = self.node("ReduceMean", self.node("Mul", x, x), self.constant("last", np.array([-1])), keepdims=1)
        root = self.node("Sqrt", self.node("Add", mean, self.constant("eps", EPS)))
        x = self.node("Div", x, root)
        levels = self.arrays.get(f"{layer}.weight.levels")
        if levels is None:
            weight = self.arrays[f"{layer}.weight"].astype(np.float32)
        else:
            weight = levels.astype(np.float32) * self.arrays[f"{layer}.weight.scale"]
            largest = self.node("ReduceMax", self.node("Abs", x), "last", keepdims=1)
            clamped = self.node("Max", largest, "eps")
            a = self.node("Div", self.constant("steps", 127.0), clamped)
            codes = self.node("Round", self.node("Mul", x, a))
            bounds = self.constant("lowest", -128.0), self.constant("highest", 127.0)
            x = self.node("Div", self.node("Clip", codes, *bounds), a)
        return self.node("MatMul", x, self.constant(f"{layer}.weight", np.ascontiguousarray(weight.T)))

    def reshape(self, x: str, *shape: int) -> str:
        return self.node("Reshape", x, self.constant("shape_" + "_".join(map(str, shape)), np.array(shape, np.int64)))

    def attention(self, x: str, block: str, length: int, width: int) -> str:
        """Causal attention of `HEADS` heads."""
        size = width // HEADS
        together = self.reshape(self.product(x, f"{block}.qkv"), -1, length, 3, HEADS, size)
        parts = [
            self.node("Gather", together, self.constant(f"part_{i}", np.array(i, np.int64)), axis=2) for i in range(3)
        ]
        q, v = (self.node("Transpose", parts[i], perm=[0, 2, 1, 3]) for i in (0, 2))
        k = self.node("Transpose", parts[1], perm=[0, 2, 3, 1])
        scores = self.node("Mul", self.node("MatMul", q, k), self.constant("attention_scale", size**-0.5))
        mask = np.triu(np.full((length, length), _MASKED, np.float32), 1)
        share = self.node("Softmax", self.node("Add", scores, self.constant("mask", mask)), axis=-1)
        mixed = self.node("Transpose", self.node("MatMul", share, v), perm=[0, 2, 1, 3])
        return self.product(self.reshape(mixed, -1, length, width), f"{block}.out")

    def model(self) -> onnx.ModelProto:
        """The whole model."""
        length, width = self.arrays["position"].shape
        vocabulary = len(self.arrays["embed.weight"])
        x = self.node("Gather", self.parameter("embed.weight"), "tokens", axis=0)
        x = self.node("Add", x, self.parameter("position"))
        blocks = sorted({name.rpartition(".qkv.")[0] for name in self.arrays if ".qkv." in name})
        for block in blocks:
            x = self.node("Add", x, self.attention(x, block, length, width))
            hidden = self.node("Relu", self.product(x, f"{block}.up"))
            x = self.node("Add", x, self.product(hidden, f"{block}.down"))
        self.product(x, "head")
        self.nodes[-1].output[0] = "logits"
        graph = helper.make_graph(
            self.nodes,
            "language_model",
            [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", length])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", length, vocabulary])],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(made, full_check=True)
        return made


def language_model(kind: str, folder: Path = PARAMETERS) -> onnx.ModelProto:
    """The ternary or the float model with the parameters of `folder`."""
    with np.load(folder / f"language_{kind}.npz") as arrays:
        return Graph({name: arrays[name] for name in arrays.files}).model()


def main() -> None:
    """Write one model."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("kind", choices=KINDS)
    options.add_argument("--parameters", type=Path, default=PARAMETERS)
    options.add_argument("--to", type=Path, required=True)
    given = options.parse_args()
    given.to.write_bytes(language_model(given.kind, given.parameters).SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
