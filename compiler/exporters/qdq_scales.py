"""Scales of int8 activations and weights: values that tensors take on calibration rows, and steps that fit them best.

Everything is symmetric: a value is an int8 code times a scale, the zero point is 0. What is quantised at all is decided
in `qdq_int8.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import GraphProto, ModelProto, ValueInfoProto, helper

from neuc.compiler.inputs import Arrays
from neuc.errors import Error, Exit

HIGH = 127
WIDE_HIGH = 32767
"""Largest code of 8 and of 16 bits."""
_SAMPLES = 4096
"""Values kept of a tensor and row, evenly spaced."""
_CLIPS = np.linspace(0.3, 1.0, 15)
"""Shares of the largest value that become code 127, tried for arbitrary scales."""
_EXPONENTS = 4
"""Powers of two tried below the one that clips nothing."""


@dataclass
class Values:
    """What a tensor held on calibration rows: some of its values, and the largest magnitude of all."""

    peak: float = 0.0
    samples: list[np.ndarray] = field(default_factory=list[np.ndarray])

    def add(self, array: np.ndarray) -> None:
        """Take in what one row gave."""
        flat = array.reshape(-1)
        if flat.size:
            self.peak = max(self.peak, float(np.abs(flat).max()))
            self.samples.append(flat[:: max(1, flat.size // _SAMPLES)].astype(np.float32))

    def scale(self, *, power_of_two: bool, wide: bool = False) -> np.float32:
        """The scale with the least squared error on the samples, in 16 bits the one that clips none; 1 for zeros."""
        if not self.samples or not self.peak:
            return np.float32(1)
        if wide:
            return np.float32(self.peak / WIDE_HIGH)
        return best_scale(np.concatenate(self.samples), self.peak, power_of_two=power_of_two)

    def sqnr_db(self, scale: np.float32) -> float:
        """Signal to noise of the samples in 8 bits; infinite where nothing is lost."""
        values = np.concatenate(self.samples) if self.samples else np.zeros(1, np.float32)
        noise = float(np.square(values - rounded(values, scale), dtype=np.float64).sum())
        signal = float(np.square(values, dtype=np.float64).sum())
        return 10 * float(np.log10(signal / noise)) if noise and signal else float("inf")

    @property
    def spread(self) -> float:
        """How many times its typical (root mean square) magnitude the largest value is."""
        values = np.concatenate(self.samples) if self.samples else np.zeros(1, np.float32)
        typical = float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
        return self.peak / typical if typical else 1.0


def best_scale(values: np.ndarray, peak: float, *, power_of_two: bool) -> np.float32:
    """The candidate by which int8 codes of `values` are off least, squared; `peak` > 0 is the largest magnitude."""
    whole = peak / HIGH
    if power_of_two:
        top = int(np.ceil(np.log2(whole)))
        candidates = [np.float32(2.0 ** (top - down)) for down in range(_EXPONENTS)]
    else:
        candidates = [np.float32(whole * share) for share in reversed(_CLIPS)]
    errors = [float(np.square(values - rounded(values, scale), dtype=np.float64).sum()) for scale in candidates]
    return candidates[int(np.argmin(errors))]


def rounded(values: np.ndarray, scale: np.float32 | np.ndarray) -> np.ndarray:
    """Values as QuantizeLinear and DequantizeLinear make them."""
    return np.clip(np.rint(values / scale), -HIGH - 1, HIGH) * scale


def weight_scales(rows: np.ndarray, *, per_channel: bool, power_of_two: bool) -> np.ndarray:
    """A scale for each row of weights [N, K], or one for all as [1], by which 127 times it reaches the largest."""
    peaks = np.abs(rows).max(axis=1) if per_channel else np.abs(rows).max(keepdims=True).reshape(1)
    scales = np.where(peaks > 0, peaks / HIGH, 1).astype(np.float32)
    return np.exp2(np.ceil(np.log2(scales))).astype(np.float32) if power_of_two else scales


def feeds_of(arrays: Arrays, graph: GraphProto, most: int) -> list[Arrays]:
    """Calibration arrays cut into feeds of as many samples as the model takes (1 where that is free), at most `most`.

    Samples lie along the first axis, but for the inputs of recurrent nodes along the one that is the node's batch.

    Raises:
        Error: NEUC-E006, an input has no array; NEUC-E699, one of another shape, or with numbers that are not finite;
            NEUC-E311, of another element type.
    """
    axes = _sample_axes(graph)
    names = ", ".join(f"{v.name} (samples along axis 1)" if axes.get(v.name) else v.name for v in graph.input)
    hint = f"give an .npz with an array for each of {names}, samples along the first axis"
    counts: dict[str, tuple[int, int]] = {}
    for value in graph.input:
        array, axis = arrays.get(value.name), axes.get(value.name, 0)
        if array is None:
            what = f"the calibration data have no array {value.name!r}"
            raise Error("NEUC-E006", what, hint=hint, exit_code=Exit.USAGE)
        shape = value.type.tensor_type.shape.dim
        fixed = [dim.dim_value for dim in shape]
        lead = max(1, fixed[axis]) if axis < len(fixed) else 1
        fits = array.ndim == len(fixed) > axis and array.shape[axis] >= lead
        if not fits or any(i != axis and f not in (0, n) for i, (f, n) in enumerate(zip(fixed, array.shape))):
            wanted = [dim.dim_value or dim.dim_param or "?" for dim in shape]
            what = f"array {value.name!r} is {list(array.shape)}, the input {wanted}"
            raise Error("NEUC-E699", what, hint=hint, exit_code=Exit.USAGE)
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        if array.dtype.newbyteorder("=") != dtype:
            raise Error(
                "NEUC-E311",
                f"input '{value.name}': expected {dtype}, got {array.dtype}",
                hint=f"convert it with .astype(np.{dtype.name.replace('bool', 'bool_')})",
                exit_code=Exit.USAGE,
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            what = f"calibration data {value.name!r} hold NaN or infinity"
            raise Error("NEUC-E699", what, hint="clean the data: a scale fits finite numbers alone")
        counts[value.name] = (array.shape[axis] // lead, lead)
    rows = min(count for count, _ in counts.values())
    return [
        {
            name: np.ascontiguousarray(arrays[name].take(range(row * lead, (row + 1) * lead), axis=axes.get(name, 0)))
            for name, (_, lead) in counts.items()
        }
        for row in range(min(rows, most))
    ]


def _sample_axes(graph: GraphProto) -> dict[str, int]:
    """Inputs whose samples lie along another axis than the first: sequences and states of recurrent nodes."""
    inputs = {value.name for value in graph.input}
    return {
        name: 1
        for node in graph.node
        if node.op_type in ("LSTM", "GRU", "RNN") and not any(a.name == "layout" and a.i for a in node.attribute)
        for name in (node.input[0], *node.input[5:7])
        if name in inputs
    }


def zero_inputs(feeds: Sequence[Arrays]) -> list[str]:
    """What to say of float inputs that are all zeros on every row, which fix scales as no real input does."""
    return [
        f"calibration data {name!r} are all zeros: scales fit no real input; give real rows"
        for name, first in (feeds[0].items() if feeds else ())
        if first.dtype.kind == "f" and not any(feed[name].any() for feed in feeds)
    ]


def observe(model: ModelProto, names: Sequence[str], feeds: Sequence[Arrays]) -> dict[str, Values]:
    """What the float tensors of `names` hold when `model` runs on `feeds`; others are left out.

    Raises:
        Error: NEUC-E260, onnxruntime cannot run the model; NEUC-E699, a tensor is not finite.
    """
    from neuc.compiler.verification import reference_session

    watched = ModelProto()
    watched.CopyFrom(model)
    own = {output.name for output in model.graph.output}
    watched.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in own)
    session = reference_session(watched.SerializeToString())
    found: dict[str, Values] = {}
    outputs = [output.name for output in session.get_outputs() if output.type == "tensor(float)"]
    for feed in feeds:
        for name, result in zip(outputs, session.run(outputs, dict(feed))):
            array = np.asarray(result)
            if not np.isfinite(array).all():
                raise Error("NEUC-E699", f"{name} is not finite on the calibration data", hint="give other rows")
            found.setdefault(name, Values()).add(array)
    return {name: values for name, values in found.items() if name in set(names)}


def scales_of(
    values: Mapping[str, Values], same: Mapping[str, str], *, power_of_two: bool, wide: Collection[str] = ()
) -> dict[str, np.float32]:
    """A scale for each tensor, of 16 bits for those in `wide`.

    Those that only move another's values (`same`: tensor -> source) have its scale.
    """
    scales: dict[str, np.float32] = {}
    for name, found in values.items():
        source = same.get(name)
        known = scales.get(source) if source is not None else None
        scales[name] = found.scale(power_of_two=power_of_two, wide=name in wide) if known is None else known
    return scales


def by_loss(
    values: Mapping[str, Values], same: Mapping[str, str], scales: Mapping[str, np.float32]
) -> list[tuple[float, tuple[str, ...]]]:
    """Tensors that share a scale, those that lose most in 8 bits first, with what is left of them in dB."""
    groups: dict[str, list[str]] = {}
    for name in values:
        first = name
        while first in same and same[first] in values:
            first = same[first]
        groups.setdefault(first, []).append(name)
    return sorted((values[first].sqnr_db(scales[first]), tuple(names)) for first, names in groups.items())
