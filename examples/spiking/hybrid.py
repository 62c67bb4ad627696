"""A hybrid network: the first layers stay numbers, the last ones spike, in one program.

    python hybrid.py            # the digits MLP, its first hidden layer numbers, accuracy beside the whole networks

`neuc convert MODEL OUT.mlir --to snn --spiking-after relu_0 …` does the same; `neuc compile` makes an artifact of it.
"""

from __future__ import annotations

import numpy as np
from image_sets import digits
from onnx_networks import onnx_network

import neuc


def main() -> None:
    """Spikes behind the first hidden layer alone."""
    images = digits()
    model, calibration = onnx_network("digits_mlp"), images.train_images[:512]
    hybrid = neuc.convert_to_snn(model, calibration, recipe="a", steps=8, spiking_after="relu_0")
    whole = neuc.convert_to_snn(model, calibration, recipe="a", steps=8)
    for name, logits in (
        ("float", whole.run_float(images.test_images)[0]),
        ("hybrid", np.asarray(hybrid.session().run(None, {"images": images.test_images})[0])),
        ("spiking", whole.run(images.test_images)[0]),
    ):
        print(f"{name}: {np.mean(logits.argmax(1) == images.test_labels):.2%}")


if __name__ == "__main__":
    main()
