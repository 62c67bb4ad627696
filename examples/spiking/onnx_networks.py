"""The networks of the spiking examples as ONNX models, made from their committed parameters: needs onnx alone.

    python onnx_networks.py fashion_cnn --to fashion_cnn.onnx

The operators are those that `torch.onnx.export` writes for the modules of `networks.py` (batch norm apart from its
convolution, LayerNormalization, Gelu, Softmax); names of weights are the modules' own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PARAMETERS = Path(__file__).parent / "parameters"
OPSET = 20
EPS = 1e-5
"""Of batch and layer norm: PyTorch's default."""


class Graph:
    """Nodes of an ONNX graph in the making; each method adds one layer and returns the name of its output.

    Args:
        parameters: arrays by name, as `train.py` writes them.
    """

    def __init__(self, parameters: dict[str, np.ndarray]) -> None:
        self.parameters = parameters
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def weight(self, name: str) -> str:
        """The parameter `name` as f32."""
        return self.constant(name, self.parameters[name].astype(np.float32))

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants[name] = value
        return name

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind.lower()}_{sum(node.op_type == kind for node in self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def linear(self, x: str, name: str) -> str:
        """A linear layer over the last axis of tokens [N, S, width]."""
        return self.product(x, name, self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"])

    def product(self, x: str, name: str, weight: np.ndarray, bias: np.ndarray) -> str:
        transposed = np.ascontiguousarray(weight.astype(np.float32).T)
        product = self.node("MatMul", x, self.constant(f"{name}.weight", transposed))
        return self.node("Add", product, self.constant(f"{name}.bias", bias.astype(np.float32)))

    def gemm(self, x: str, name: str) -> str:
        return self.node("Gemm", x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"), transB=1)

    def conv(self, x: str, name: str, *, stride: int = 1, pad: int = 0) -> str:
        biases = [self.weight(f"{name}.bias")] if f"{name}.bias" in self.parameters else []
        kernel = self.parameters[f"{name}.weight"].shape[2:]
        sizes = {"kernel_shape": kernel, "strides": [stride] * 2, "pads": [pad] * 4}
        return self.node("Conv", x, self.weight(f"{name}.weight"), *biases, **sizes)

    def batch_norm(self, x: str, name: str) -> str:
        parts = (self.weight(f"{name}.{part}") for part in ("weight", "bias", "running_mean", "running_var"))
        return self.node("BatchNormalization", x, *parts, epsilon=EPS)

    def layer_norm(self, x: str, name: str) -> str:
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=EPS)

    def average_pool(self, x: str, size: int) -> str:
        return self.node("AveragePool", x, kernel_shape=[size] * 2, strides=[size] * 2)

    def reshape(self, x: str, *shape: int) -> str:
        """0 keeps a size, -1 is what is left."""
        return self.node("Reshape", x, self.constant("shape_" + "_".join(map(str, shape)), np.array(shape, np.int64)))

    def model(self, name: str, side: int, result: str) -> onnx.ModelProto:
        """The finished model: `images` f32 [batch, 1, side, side] -> `logits` f32 [batch, 10]."""
        self.nodes[-1].output[0] = "logits"
        assert result == self.nodes[-1].name
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, side, side])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
            [numpy_helper.from_array(value, key) for key, value in self.constants.items()],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
        onnx.checker.check_model(made, full_check=True)
        return made


def mlp(g: Graph) -> str:
    """Linear layers 1, 3, 5 of the module, ReLU between."""
    x = g.node("Flatten", "images", axis=1)
    x = g.node("Relu", g.gemm(x, "1"))
    x = g.node("Relu", g.gemm(x, "3"))
    return g.gemm(x, "5")


def cnn(g: Graph) -> str:
    """Three times convolution, batch norm, ReLU, average pooling."""
    x = "images"
    for layer in (0, 4, 8):
        x = g.node("Relu", g.batch_norm(g.conv(x, str(layer), pad=1), str(layer + 1)))
        x = g.average_pool(x, 2)
    return g.gemm(g.node("Flatten", x, axis=1), "13")


def resnet(g: Graph) -> str:
    """Stem, two residual blocks, mean, classes."""
    x = g.node("Relu", g.batch_norm(g.conv("images", "0", stride=2, pad=1), "1"))
    for block, stride in (("3", 1), ("4", 2)):
        inner = g.node("Relu", g.batch_norm(g.conv(x, f"{block}.conv1", stride=stride, pad=1), f"{block}.bn1"))
        inner = g.batch_norm(g.conv(inner, f"{block}.conv2", pad=1), f"{block}.bn2")
        if stride != 1:
            x = g.batch_norm(g.conv(x, f"{block}.shortcut.0", stride=stride), f"{block}.shortcut.1")
        x = g.node("Relu", g.node("Add", inner, x))
    return g.gemm(g.node("Flatten", g.average_pool(x, 7), axis=1), "7")


def transformer(g: Graph, heads: int = 4) -> str:
    """Patches by a strided convolution, two pre-norm blocks, the mean over the patches, classes."""
    width, _, patch, _ = g.parameters["embed.weight"].shape
    x = g.reshape(g.conv("images", "embed", stride=patch), 0, width, -1)
    x = g.node("Add", g.node("Transpose", x, perm=[0, 2, 1]), g.weight("position"))
    tokens = g.parameters["position"].shape[1]
    for block in ("blocks.0", "blocks.1"):
        x = g.node(
            "Add", x, attention(g, g.layer_norm(x, f"{block}.norm1"), f"{block}.attention", tokens, width, heads)
        )
        hidden = g.node("Gelu", g.linear(g.layer_norm(x, f"{block}.norm2"), f"{block}.up"))
        x = g.node("Add", x, g.linear(hidden, f"{block}.down"))
    x = g.node("ReduceMean", g.layer_norm(x, "norm"), g.constant("axis_1", np.array([1], np.int64)), keepdims=0)
    return g.gemm(x, "head")


def attention(g: Graph, x: str, name: str, tokens: int, width: int, heads: int) -> str:
    """Softmax attention of `heads` heads, all tokens seeing all."""
    weights, biases = (np.split(g.parameters[f"{name}.in_proj_{kind}"], 3) for kind in ("weight", "bias"))
    parts = [
        g.reshape(g.product(x, f"{name}.{part}", weight, bias), -1, tokens, heads, width // heads)
        for part, weight, bias in zip("qkv", weights, biases, strict=True)
    ]
    q, v = (g.node("Transpose", parts[i], perm=[0, 2, 1, 3]) for i in (0, 2))
    k = g.node("Transpose", parts[1], perm=[0, 2, 3, 1])
    scale = g.constant("attention_scale", np.array((width // heads) ** -0.5, np.float32))
    share = g.node("Softmax", g.node("Mul", g.node("MatMul", q, k), scale), axis=-1)
    mixed = g.node("Transpose", g.node("MatMul", share, v), perm=[0, 2, 1, 3])
    return g.linear(g.reshape(mixed, -1, tokens, width), f"{name}.out_proj")


BUILDERS: dict[str, tuple[Callable[[Graph], str], int]] = {
    "fashion_mlp": (mlp, 28),
    "fashion_cnn": (cnn, 28),
    "fashion_resnet": (resnet, 28),
    "fashion_vit": (transformer, 28),
    "mnist_cnn": (cnn, 28),
    "digits_mlp": (mlp, 8),
    "digits_vit": (transformer, 8),
}
"""Name -> what builds the network, and the side of its images in pixels."""


def onnx_network(name: str, folder: Path = PARAMETERS) -> onnx.ModelProto:
    """The network with the parameters of `folder`."""
    build, side = BUILDERS[name]
    with np.load(folder / f"{name}.npz") as arrays:
        graph = Graph({key: arrays[key] for key in arrays.files})
    return graph.model(name, side, build(graph))


def main() -> None:
    """Write one model."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("name", choices=list(BUILDERS))
    options.add_argument("--parameters", type=Path, default=PARAMETERS)
    options.add_argument("--to", type=Path, required=True)
    given = options.parse_args()
    given.to.write_bytes(onnx_network(given.name, given.parameters).SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
