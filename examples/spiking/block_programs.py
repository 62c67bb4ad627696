"""The trained spiking blocks as modules of `spike` and `dense` operations, from their parameters: needs no torch.

    python block_programs.py spike_transformer        # prints the module

Each takes images f32 [batch, 1, 8, 8] and gives logits f32 [batch, 10].
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, FunctionType, ModuleOp, StringAttr, f32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region, SSAValue

from neuc.compiler.snn.composites.selective_scan import IntegerNeurons, ScanLayers, selective_scan
from neuc.compiler.snn.composites.spike_attention import AttentionLayers, Layer, spike_attention
from neuc.compiler.snn.composites.step_builder import Ops, Step
from neuc.dialects import spike
from neuc.dialects.dense import LayerNormOp
from neuc.dialects.dense_attrs import ReduceKind
from neuc.dialects.onnx_base import NAME
from neuc.dialects.store import tensor_type
from neuc.dialects.weight_store import WeightStore

PARAMETERS = Path(__file__).parent / "parameters"
STEPS, DECAY, MATCH = 4, 0.5, 0.5
"""Of the spike-driven Transformer: time steps, decay of membranes, weight of one match of query and key."""
LEAK, MOST = 0.0, 4
"""Of signed-integer neurons: what stays of the rest, and the largest integer."""
TOKENS, PIXELS, BATCH = 16, 4, "batch"

Parameters = dict[str, np.ndarray]


def _patches(ops: Ops, images: SSAValue) -> SSAValue:
    """f32 [batch, 1, 8, 8] -> f32 [batch, 16, 4]: patches of 2x2, row by row."""
    x = ops.transpose(ops.reshape(images, [BATCH, 4, 2, 4, 2]), [0, 1, 3, 2, 4])
    return ops.reshape(x, [BATCH, TOKENS, PIXELS])


def spike_transformer(ops: Ops, images: SSAValue, parameters: Parameters) -> SSAValue:
    """Constant currents from the pixels, `STEPS` steps of one block, classes of mean spike counts."""
    layer = {
        name: Layer(parameters[f"{name}.weight"], parameters[f"{name}.bias"])
        for name in ("embed", "q", "k", "v", "out", "up", "down", "head")
    }
    current = ops.linear(_patches(ops, images), "embed", layer["embed"].weight, layer["embed"].bias)
    current = ops.sum(current, ops.constant("position", parameters["position"]))
    width = parameters["position"].shape[1]
    step = Step.of(ops)
    attention = AttentionLayers(layer["q"], layer["k"], layer["v"], layer["out"])
    tokens = step.lif(current, DECAY)
    x = step.sum(current, spike_attention(step, tokens, "attention", attention, decay=DECAY, weight=MATCH))
    hidden = step.lif(step.linear(step.lif(x, DECAY), "up", layer["up"].weight, layer["up"].bias), DECAY)
    x = step.sum(x, step.linear(hidden, "down", layer["down"].weight, layer["down"].bias))
    counts = step.zero_state([BATCH, TOKENS, width])
    step.keep(counts, step.add(spike.AccumulateOp(step.lif(x, DECAY), counts)))
    loop = step.close([], STEPS)
    mean = ops.reduce(ReduceKind.MEAN, step.final(loop, counts), 1)
    return ops.linear(mean, "head", layer["head"].weight / STEPS, layer["head"].bias)


def spike_mamba(ops: Ops, images: SSAValue, parameters: Parameters) -> SSAValue:
    """A token a step: embedding and norm before the loop, the block in it, classes of the mean token."""
    p = parameters
    x = ops.linear(_patches(ops, images), "embed", p["embed.weight"], p["embed.bias"])
    x = ops.sum(x, ops.constant("position", p["position"]))
    normed = ops.add(LayerNormOp(x, ops.constant("norm", p["norm.weight"]), None, axis=2, eps=1e-5, rms=True))
    neurons = [IntegerNeurons(p[f"spikes{i}.unit"], LEAK, MOST) for i in (1, 2, 3)]
    layers = ScanLayers(
        into=p["into.weight"], into_bias=p["into.bias"], conv=p["conv.weight"][:, 0], conv_bias=p["conv.bias"],
        select=p["select.weight"], step=p["step.weight"], step_bias=p["step.bias"], decay=p["decay"], skip=p["skip"],
        out=p["out.weight"], out_bias=p["out.bias"], neurons=(neurons[0], neurons[1], neurons[2]),
    )  # fmt: skip
    step = Step.of(ops, [ops.transpose(value, [1, 0, 2]) for value in (x, normed)])
    shortcut, token = step.slices
    total = step.zero_state([BATCH, len(p["out.bias"])])
    step.keep(total, step.sum(total, shortcut, selective_scan(step, token, "scan", layers)))
    loop = step.close([], TOKENS)
    return ops.linear(step.final(loop, total), "head", p["head.weight"] / TOKENS, p["head.bias"])


PROGRAMS: dict[str, Callable[[Ops, SSAValue, Parameters], SSAValue]] = {
    "spike_transformer": spike_transformer,
    "spike_mamba": spike_mamba,
}


def block_program(name: str, folder: Path = PARAMETERS) -> tuple[ModuleOp, WeightStore]:
    """The module, verified, and its weights."""
    with np.load(folder / f"{name}.npz") as arrays:
        parameters = {key: arrays[key].astype(np.float32) for key in arrays.files}
    images, logits = tensor_type(f32, [BATCH, 1, 8, 8]), tensor_type(f32, [BATCH, 10])
    ops = Ops(Block(arg_types=[images]), WeightStore())
    ops.block.add_op(ReturnOp(PROGRAMS[name](ops, ops.block.args[0], parameters)))
    main = FuncOp("main", FunctionType.from_lists([images], [logits]), Region(ops.block))
    main.arg_attrs = ArrayAttr([DictionaryAttr({NAME: StringAttr("images")})])
    main.res_attrs = ArrayAttr([DictionaryAttr({NAME: StringAttr("logits")})])
    module = ModuleOp([main])
    module.verify()
    return module, ops.store


def main() -> None:
    """Print one module."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("name", choices=list(PROGRAMS))
    print(block_program(options.parse_args().name)[0])


if __name__ == "__main__":
    main()
