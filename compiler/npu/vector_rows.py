"""What the machine model says about rows without products: element by element, softmax, norms, and about convolutions.

Programs are taken as published ones are made: tiles stream through the cores, operands and results at once, while
the cores work. A function costs a core so many passes over its elements and so many curves; what those take is what
published kernels take, far more than vectors would need.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, prod

from neuc.backends.npu import timing_model as timing
from neuc.compiler.npu.row_config import shape_fault, type_fault
from neuc.compiler.npu.row_fields import (
    cores_in,
    faults_in,
    in_unit,
    refuse,
    sizes_in,
    type_in,
    with_dispatch,
)
from neuc.compiler.npu.rows import Prediction, Row
from neuc.runtime.npu.machine import Machine, Sku

_CHANNELS = 2
"""Of a shim, each way."""


@dataclass(frozen=True)
class VectorFunction:
    """What a function of vectors costs.

    Attributes:
        inputs: Operands as large as the result.
        passes: How often a core goes over its elements, a vector at a time.
        float_passes: How often it adds up, compares or scales them as floats.
        reductions: How often it makes one number of a row, the last size of a shape.
        curves: Exponentials or the like of each element.
        operations: Of each element, as operations a second count them; 0 where sources count differently.
    """

    inputs: int = 1
    passes: int = 0
    float_passes: int = 0
    reductions: int = 0
    curves: int = 0
    operations: int = 0


_SUM = VectorFunction(inputs=2, passes=1, operations=1)
_MAP = VectorFunction(passes=1, operations=1)
VECTOR_FUNCTIONS: Mapping[str, VectorFunction] = {
    **dict.fromkeys(("passthrough", "memcpy", "mem_copy"), VectorFunction()),
    **dict.fromkeys(("add", "eltwise_add", "elementwise_add", "vector_vector", "vector_vector_add"), _SUM),
    **dict.fromkeys(("mul", "eltwise_mul", "elementwise_mul", "vector_vector_mul"), _SUM),
    "axpy": VectorFunction(inputs=2, passes=1, operations=2),
    **dict.fromkeys(("elementwise", "vector_scalar", "vector_scalar_mul", "scale", "relu", "leaky_relu"), _MAP),
    **dict.fromkeys(("gelu", "silu", "sigmoid", "tanh", "exp"), VectorFunction(curves=1)),
    **dict.fromkeys(("silu_mul", "swiglu"), VectorFunction(inputs=2, passes=1, curves=1)),
    "softmax": VectorFunction(float_passes=3, reductions=2, curves=1),
    **dict.fromkeys(("rmsnorm", "rms_norm"), VectorFunction(float_passes=2, reductions=1)),
    **dict.fromkeys(("layernorm", "layer_norm"), VectorFunction(float_passes=3, reductions=2)),
}
"""By kind of row. Passes follow from definitions: a softmax takes a maximum, adds up and divides."""


def predict_vector(row: Row, machine: Machine, sku: Sku) -> Prediction:
    """A function of vectors: what moves, and what cores do meanwhile."""
    sizes, kind = sizes_in(row.shape), type_in(row.dtype)
    why = faults_in(shape_fault(row.shape, sizes, "sizes"), type_fault(row.dtype, kind))
    if why or kind is None:
        return refuse(row, why)
    function, count = VECTOR_FUNCTIONS[row.kind], prod(sizes)
    # Unlike a product's sums, elements keep their type unless the row names another.
    each = timing.ELEMENT_BYTES[kind.a], timing.ELEMENT_BYTES[kind.c if "->" in row.dtype else kind.a]
    inputs = 2 if re.search(r"two inputs", row.config) else function.inputs
    columns, deep = _columns_in(row.config, machine)
    cost = machine.timing
    of_element = function.passes * max(each) / cost["elementwise_lanes_8bit"]
    of_element += function.float_passes * cost["library_pass_cycles"] + function.curves * cost["library_curve_cycles"]
    cycles = count * of_element + count / sizes[-1] * function.reductions * cost["library_row_cycles"]
    inward, outward = count * each[0] * inputs, count * each[1]
    seconds = timing.streamed_seconds(
        machine,
        sku,
        inward,
        outward,
        (columns * min(_CHANNELS, inputs * deep), columns * min(_CHANNELS, deep)),
        busy_cycles=cycles / (columns * deep),
    )
    found = in_unit(row, seconds, sku, count * function.operations, "", nbytes=inward + outward)
    return replace(found, includes=with_dispatch(sku))


def predict_convolution(row: Row, machine: Machine, sku: Sku) -> Prediction:
    """A convolution of an image H x W x C_in to C_out channels, its filters on the cores; the row gives the rate."""
    sizes, kind = sizes_in(row.shape), type_in(row.dtype)
    given = re.search(r"\brate=(?=\S*[1-9])(\d{1,9}(?:\.\d{1,9})?)", row.config)
    slow = "" if given else "kernels of published convolutions do 0.04 to 4 multiply-adds a cycle; give rate="
    why = faults_in(shape_fault(row.shape, sizes, "HxWxC_INxC_OUT"), type_fault(row.dtype, kind), slow)
    if why or kind is None or given is None:
        return refuse(row, why)
    height, width, channels, filters = sizes
    if "->" not in row.dtype:
        kind = replace(kind, c=kind.a)
    across = re.search(r"\bfilter=([1-9]\d{0,2})x([1-9]\d{0,2})\b", row.config)
    stride = re.search(r"\bstride=([1-9]\d{0,2})\b", row.config)
    taps = int(across[1]) * int(across[2]) if across else 1
    step = int(stride[1]) if stride else 1
    pixels = ceil(height / step) * ceil(width / step)
    columns, deep = _columns_in(row.config, machine)
    rate = float(given[1])
    macs = pixels * taps * channels * filters
    a, b, c = kind.nbytes
    inward, outward = height * width * channels * a + taps * channels * filters * b, pixels * filters * c
    seconds = timing.streamed_seconds(
        machine, sku, inward, outward, (columns, columns), busy_cycles=macs / rate / (columns * deep)
    )
    found = in_unit(row, seconds, sku, 2 * macs, "row", nbytes=inward + outward)
    return replace(found, includes=f"filters stay on the cores, {with_dispatch(sku)}")


def _columns_in(config: str, machine: Machine) -> tuple[int, int]:
    """Columns at work and cores in each; one core if the row does not say."""
    herd = re.search(r"\bherd=(\d+)x(\d+)", config)
    if herd:
        return max(1, int(herd[1])), max(1, int(herd[2]))
    if not re.search(r"core|col", config):
        return 1, 1
    deep, columns = cores_in(config, machine)
    return columns, deep
