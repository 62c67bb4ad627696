"""A hybrid network: the first layers stay numbers, the last ones spike.

    python hybrid.py            # both halves of the digits MLP, accuracy beside the whole networks

The model is cut at a tensor. What stands before it is compiled as it is; what stands behind it is converted, with the
first half's outputs as calibration data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from image_sets import digits
from onnx.utils import Extractor
from onnx_networks import onnx_network

import neuc


@dataclass
class Hybrid:
    """A network in two halves.

    Attributes:
        front: the first half, compiled for the target `cpu`.
        back: the spiking second half.
        cut: the tensor between them.
    """

    front: neuc.Session
    back: neuc.SpikingModel
    cut: str

    def run(self, images: np.ndarray, steps: int | None = None) -> np.ndarray:
        """Logits f32 [N, 10] after `steps` time steps of the second half."""
        (between,) = self.front.run(None, {"images": images})
        return self.back.run(np.asarray(between), steps)[0]


def hybrid(model: onnx.ModelProto, cut: str, calibration: np.ndarray, recipe: str = "a", steps: int = 8) -> Hybrid:
    """Cut a model of one input `images` and one output `logits` at the tensor `cut`."""
    inferred = onnx.shape_inference.infer_shapes(model)
    extractor = Extractor(inferred)
    front = neuc.compile(extractor.extract_model(["images"], [cut]), target="cpu").session()
    (between,) = front.run(None, {"images": calibration})
    back = neuc.convert_to_snn(
        extractor.extract_model([cut], ["logits"]), np.asarray(between), recipe=recipe, steps=steps
    )
    return Hybrid(front, back, cut)


def main() -> None:
    """Cut behind the first hidden layer."""
    images = digits()
    model = onnx_network("digits_mlp")
    made = hybrid(model, "relu_0", images.train_images[:512])
    whole = neuc.convert_to_snn(model, images.train_images[:512], recipe="a", steps=8)
    for name, logits in (
        ("float", whole.run_float(images.test_images)[0]),
        ("hybrid", made.run(images.test_images)),
        ("spiking", whole.run(images.test_images)[0]),
    ):
        print(f"{name}: {np.mean(logits.argmax(1) == images.test_labels):.2%}")


if __name__ == "__main__":
    main()
