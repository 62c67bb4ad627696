"""Writes the trained digits classifiers as ONNX files in every form that tools give ternary models: needs torch.

    python export.py               # models/*.onnx from the parameters in this folder

The files are the same for the same parameters and versions of torch and onnxscript.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import torch
from bitlinear import BitLinear, PackedBitLinear, UnpackedBitLinear, classifier, load_parameters, released
from onnx_forms import BINARY_FORMS, TERNARY_FORMS, Layer, write_form
from torch import nn
from train import KINDS

HERE = Path(__file__).parent


def trained(kind: str, *, straight_through: bool, folder: Path = HERE) -> nn.Sequential:
    """The model with the committed parameters."""
    model = classifier(KINDS[kind], straight_through=straight_through)
    with np.load(folder / "parameters.npz") as arrays:
        load_parameters(
            model, {name.removeprefix(f"{kind}."): arrays[name] for name in arrays if name.startswith(kind)}
        )
    return model.eval()


def exported(model: nn.Sequential) -> onnx.ModelProto:
    """What `torch.onnx.export` writes, with the batch symbolic; paths of the tracing machine left out."""
    program = torch.onnx.export(
        model,
        (torch.ones(2, 64),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["pixels"],
        output_names=["logits"],
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    for node in proto.graph.node:
        del node.metadata_props[:]
    for value in [*proto.graph.value_info, *proto.graph.input, *proto.graph.output]:
        del value.metadata_props[:]
    del proto.graph.metadata_props[:], proto.metadata_props[:]
    return proto


def layers_of(model: nn.Sequential) -> list[Layer]:
    """Codes, scale and gain of each BitLinear, as the model itself computes them."""
    found: list[Layer] = []
    for layer in model:
        if isinstance(layer, BitLinear):
            levels = layer.quantize_weights(layer.weight).detach().numpy()
            gain, master = layer.norm.weight.detach().numpy(), layer.weight.detach().numpy()
            found.append(Layer(np.sign(levels).astype(np.int8), np.abs(levels).max(), gain, master))
    return found


def all_forms(folder: Path = HERE) -> dict[str, onnx.ModelProto]:
    """Every file by name."""
    ternary = trained("ternary", straight_through=False, folder=folder)
    binary = trained("binary", straight_through=False, folder=folder)
    return {
        "fake_quant_ste": exported(trained("ternary", straight_through=True, folder=folder)),
        "fake_quant": exported(ternary),
        "hf_packed": exported(released(ternary, PackedBitLinear)),
        "hf_unpacked": exported(released(ternary, UnpackedBitLinear)),
        **{name: write_form(form, layers_of(ternary)) for name, form in TERNARY_FORMS.items()},
        "mixed": exported(trained("mixed", straight_through=True, folder=folder)),
        "binary": exported(binary),
        **{name: write_form(form, layers_of(binary)) for name, form in BINARY_FORMS.items()},
    }


def main() -> None:
    """Write all files."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--parameters", type=Path, default=HERE)
    options.add_argument("--to", type=Path, default=HERE / "models")
    given = options.parse_args()
    given.to.mkdir(parents=True, exist_ok=True)
    for name, model in all_forms(given.parameters).items():
        path = given.to / f"{name}.onnx"
        path.write_bytes(model.SerializeToString(deterministic=True))
        print(f"{path.name}: {path.stat().st_size:,} bytes, opset {model.opset_import[0].version}")


if __name__ == "__main__":
    main()
