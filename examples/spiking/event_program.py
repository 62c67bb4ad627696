"""A spiking network for event cameras as a program that is called for every packet of events and keeps its state.

    python event_program.py              # prints the module

Inputs: `events` [steps, 1, inputs], one event in each step, and the states; results: the states after them. Hidden
neurons fire signed spikes, so that what a later event takes back is taken back; outputs add up what spikes bring.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from event_camera import POLARITIES, SENSOR, address
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, FunctionType, ModuleOp, StringAttr, f32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region

from neuc.compiler.snn.composites.step_builder import Ops, Step
from neuc.dialects import spike
from neuc.dialects.onnx_base import NAME
from neuc.dialects.store import tensor_type
from neuc.dialects.weight_store import WeightStore

PARAMETERS = Path(__file__).parent / "parameters"
INPUTS, CLASSES = POLARITIES * SENSOR * SENSOR, 10
SPIKES = 64
"""How many spikes a hidden neuron sends for the largest activity it had in training."""
STATES = ("membrane", "sent", "output")


def event_program(packet: int, folder: Path = PARAMETERS) -> tuple[ModuleOp, WeightStore]:
    """The module for packets of `packet` events, and its weights.

    In steps without an event neurons whose membrane is still over a threshold fire again, and nothing else happens.
    """
    with np.load(folder / "events_mlp.npz") as arrays:
        hidden, out, largest = (arrays[name].astype(np.float32) for name in ("hidden", "out", "largest"))
    count = len(hidden)
    unit = (largest / SPIKES).astype(np.float32)
    types = [tensor_type(spike.BINARY, [packet, 1, INPUTS])]
    types += [tensor_type(f32, [1, size]) for size in (count, count, CLASSES)]
    ops = Ops(Block(arg_types=types), WeightStore())
    events, *states = ops.block.args
    step = Step.of(ops, [events])
    membrane, sent, output = (step.state(state) for state in states)
    current = step.linear(step.slices[0], "hidden", hidden / unit[:, None])
    neuron = spike.MultiThresholdOp(current, [membrane, sent], step.constant("unit", 1.0), spike.SIGNED, relu=True)
    spikes = step.add(neuron)
    step.keep(membrane, neuron.next_membrane)
    step.keep(sent, neuron.next_output)
    step.keep(output, step.sum(output, step.linear(spikes, "out", out * unit)))
    loop = step.close([], packet)
    ops.block.add_op(ReturnOp(*loop.final))
    main = FuncOp("main", FunctionType.from_lists(types, types[1:]), Region(ops.block))
    main.arg_attrs = ArrayAttr([DictionaryAttr({NAME: StringAttr(name)}) for name in ("events", *STATES)])
    main.res_attrs = ArrayAttr([DictionaryAttr({NAME: StringAttr(f"next_{name}")}) for name in STATES])
    module = ModuleOp([main])
    module.verify()
    return module, ops.store


def start(folder: Path = PARAMETERS) -> dict[str, np.ndarray]:
    """The states before the first event."""
    with np.load(folder / "events_mlp.npz") as arrays:
        count = len(arrays["hidden"])
    return {name: np.zeros((1, CLASSES if name == "output" else count), np.float32) for name in STATES}


def packets(events: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Events `EVENT` [M] as one-hot steps i8 [size, 1, inputs]; the last packet ends in steps without events."""
    where = address(events)
    for begin in range(0, len(where), size):
        made = np.zeros((size, 1, INPUTS), np.int8)
        part = where[begin : begin + size]
        made[np.arange(len(part)), 0, part] = 1
        yield made


if __name__ == "__main__":
    print(event_program(1)[0])
