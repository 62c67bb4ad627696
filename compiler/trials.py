"""Running a model as if some of its layers were ternary, quickly: what the search for planes asks for, again and again.

`OnnxTrial` runs the float model in onnxruntime with weights as inputs; `InterpretedTrial` runs any module, slowly. How
ternary weights are fitted and what operations mean is told elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from xdsl.dialects.builtin import ModuleOp

from neuc.compiler.evaluate import Evaluator, Outputs
from neuc.compiler.inputs import Arrays
from neuc.compiler.verification import reference_session, run_reference
from neuc.dialects.context import NeucContext
from neuc.dialects.ternary import WeightOp
from neuc.dialects.weight_store import WeightStore
from neuc.passes.analysis.ternary_trial import TernaryTrial, matrix_of

Weights = Mapping[str, "WeightOp | None"]
"""A fitted weight for each layer; None leaves it float."""


class Trial(Protocol):
    """A model whose layers can be tried as ternary ones."""

    @property
    def names(self) -> tuple[str, ...]:
        """The layers that can be ternary."""
        ...

    def outputs(self, weights: Weights) -> Outputs:
        """The model's outputs, for each input, with these weights; they stay until they are changed."""
        ...


class InterpretedTrial:
    """A trial in the interpreters, for modules that `OnnxTrial` cannot follow."""

    def __init__(self, module: ModuleOp, store: WeightStore, feeds: Sequence[Arrays], min_k: int) -> None:
        self._store = store
        self._trial = TernaryTrial(module, store, min_k)
        self._evaluator = Evaluator(NeucContext(weights=self._trial.scratch), feeds)

    @property
    def names(self) -> tuple[str, ...]:
        """The layers that can be ternary."""
        return self._trial.names

    def outputs(self, weights: Weights) -> Outputs:
        """Run the trial module."""
        self._trial.assign(weights, self._store)
        return self._evaluator.outputs(self._trial.module)


@dataclass(frozen=True)
class _Layer:
    """How a node takes its weights: the matrix [N, K] divided by alpha, transposed or not, in this shape."""

    shape: tuple[int, ...]
    transposed: bool
    alpha: float

    def matrix(self, array: np.ndarray) -> np.ndarray:
        """The node's weights as a matrix [N, K]."""
        matrix = array.T if self.transposed else array.reshape(array.shape[0], -1)
        return matrix if self.alpha == 1 else matrix * np.float32(self.alpha)

    def weights(self, matrix: np.ndarray) -> np.ndarray:
        """The inverse of `matrix`."""
        scaled = matrix if self.alpha == 1 else matrix / np.float32(self.alpha)
        return np.ascontiguousarray(scaled.T if self.transposed else scaled).reshape(self.shape)


class OnnxTrial:
    """A trial in onnxruntime: weights are inputs, activations are rounded to int8 and back where a switch says so."""

    def __init__(
        self, model: ModelProto, matrices: Mapping[str, np.ndarray], store: WeightStore, feeds: Sequence[Arrays]
    ) -> None:
        """Prepare a trial.

        Args:
            model: the float model, which is changed.
            matrices: the weights [N, K] of each layer that can be ternary, by node name.
            store: where fitted weights are.
            feeds: inputs to run on.

        Raises:
            KeyError: a layer is not one node of the model with these weights.
        """
        self._store, self._feeds = store, feeds
        self._layers: dict[str, _Layer] = {}
        self._extra: Arrays = {}
        self._made: dict[tuple[str, str], np.ndarray] = {}
        self._own: Arrays = {}
        surgeon = _Surgeon(model)
        for name, matrix in matrices.items():
            self._layers[name], array = surgeon.open_layer(name, matrix)
            self._own[name] = array
        surgeon.finish()
        self._outputs = [output.name for output in model.graph.output]
        self._session = reference_session(model.SerializeToString(), beside_others=True)

    @property
    def names(self) -> tuple[str, ...]:
        """The layers that can be ternary."""
        return tuple(self._layers)

    def outputs(self, weights: Weights) -> Outputs:
        """Run the model."""
        for name in self._layers:
            weight = weights.get(name)
            self._extra[_switch(name)] = np.array(weight is not None)
            self._extra[_weight(name)] = self._own[name] if weight is None else self._matrix(name, weight)
        return [run_reference(self._session, self._outputs, {**feed, **self._extra}) for feed in self._feeds]

    def _matrix(self, name: str, weight: WeightOp) -> np.ndarray:
        key = (name, weight.trits.data)
        if key not in self._made:
            self._made[key] = self._layers[name].weights(matrix_of(weight, self._store))
        return self._made[key]


class _Surgeon:
    """Opens layers of a model: their weights become inputs, their activations pass through rounding."""

    def __init__(self, model: ModelProto) -> None:
        self._graph = model.graph
        self._nodes = {node.name: node for node in self._graph.node}
        self._arrays = {tensor.name: tensor for tensor in self._graph.initializer}
        self._before: dict[str, list[NodeProto]] = {}
        self._rounded: dict[tuple[str, int], str] = {}

    def open_layer(self, name: str, matrix: np.ndarray) -> tuple[_Layer, np.ndarray]:
        """Open the layer of node `name` and return it with the weights it had.

        Raises:
            KeyError: there is no such node, or it has other weights than `matrix`.
        """
        node = self._nodes[name]
        array = numpy_helper.to_array(self._arrays[node.input[1]])
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        transposed = node.op_type == "MatMul" or (node.op_type == "Gemm" and not attributes.get("transB"))
        layer = _Layer(array.shape, transposed, attributes.get("alpha", 1.0) if node.op_type == "Gemm" else 1.0)
        known = node.op_type in ("MatMul", "Gemm", "Conv") and not attributes.get("transA")
        if not known or not np.array_equal(layer.matrix(array), matrix):
            raise KeyError(name)
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        self._graph.input.append(helper.make_tensor_value_info(_weight(name), kind, array.shape))
        self._graph.input.append(helper.make_tensor_value_info(_switch(name), TensorProto.BOOL, []))
        axes = array.ndim - 1 if node.op_type == "Conv" else 1
        rounded = self._rounding(node, node.input[0], axes)
        chosen = f"trial.{name}.activations"
        where = helper.make_node("Where", [_switch(name), rounded, node.input[0]], [chosen], name=chosen)
        self._before.setdefault(name, []).append(where)
        node.input[0], node.input[1] = chosen, _weight(name)
        return layer, array

    def finish(self) -> None:
        """Put the new nodes in their places and drop weights that are inputs now."""
        nodes = [new for node in self._graph.node for new in (*self._before.get(node.name, ()), node)]
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        # Subgraphs may read weights of the main graph; then all of them stay.
        nested = any(a.HasField("g") or a.graphs for node in nodes for a in node.attribute)
        kept = [tensor for tensor in self._graph.initializer if nested or tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)

    def _rounding(self, node: NodeProto, x: str, axes: int) -> str:
        """The name of `x` through int8 and back, made before its first reader; as `ternary.quantize` defines it."""
        known = self._rounded.get((x, axes))
        if known is not None:
            return known
        base = f"trial.{x}.{axes}"
        constants = {
            f"{base}.axes": np.arange(-axes, 0),
            f"{base}.least": np.array(1e-5, np.float32),
            f"{base}.most": np.array(127, np.float32),
        }
        self._graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in constants.items())
        steps = [
            ("Abs", [x], "size"),
            ("ReduceMax", [f"{base}.size", f"{base}.axes"], "largest"),
            ("Max", [f"{base}.largest", f"{base}.least"], "bounded"),
            ("Div", [f"{base}.most", f"{base}.bounded"], "factor"),
            ("Mul", [x, f"{base}.factor"], "scaled"),
            ("Round", [f"{base}.scaled"], "codes"),
            ("Div", [f"{base}.codes", f"{base}.factor"], "rounded"),
        ]
        made = [helper.make_node(op, ins, [f"{base}.{out}"], name=f"{base}.{out}") for op, ins, out in steps]
        self._before.setdefault(node.name, []).extend(made)
        self._rounded[x, axes] = f"{base}.rounded"
        return f"{base}.rounded"


def _weight(name: str) -> str:
    return f"trial.{name}.weight"


def _switch(name: str) -> str:
    return f"trial.{name}.ternary"
