"""Weights that a model computes from constants alone, as low-bit forms do: as one array each.

The forms are read as the compiler reads them: imported, lowered and interpreted. Nothing is written here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from xdsl.dialects.builtin import ModuleOp

from neuc.compiler.importers.onnx_file import import_onnx
from neuc.compiler.importers.structure import subgraphs
from neuc.dialects.context import NeucContext
from neuc.dialects.dense import MatMulOp
from neuc.dialects.interp.core import interpret
from neuc.dialects.store import ConstantOp
from neuc.errors import Error
from neuc.passes.analysis.ternary_layers import weight_matrix
from neuc.passes.lower_onnx_to_dense import LowerOnnxToDense

MAX_NODES = 32
"""Most nodes between constants and a weight; quantisers have five or so."""


@dataclass
class ComputedWeights:
    """The constants of a model's main graph, and what follows from them.

    Attributes:
        model: left unchanged.
    """

    model: ModelProto
    _constants: dict[str, TensorProto] = field(init=False)
    _producers: dict[str, NodeProto] = field(init=False)

    def __post_init__(self) -> None:
        graph = self.model.graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._producers = {name: node for node in graph.node for name in node.output if name}

    def value(self, name: str) -> np.ndarray | None:
        """The elements of a constant, or of a float value that depends on constants alone; None of any other."""
        if name in self._constants:
            return numpy_helper.to_array(self._constants[name])
        nodes = self._nodes(name)
        if nodes is None:
            return None
        try:
            module, context = self._lowered(nodes, [], name)
            return interpret(module, [], context.weights)[0]
        except Error:  # onnxruntime may be able to compute it
            return None

    def packed(self, node: NodeProto) -> np.ndarray | None:
        """The weights [K, N] of a MatMulNBits; None if its operands are no constants or neuc does not read the node."""
        if not all(name in self._constants for name in filter(None, node.input[1:])):
            return None
        columns = next((attribute.i for attribute in node.attribute if attribute.name == "K"), 0)
        alone = NodeProto()
        alone.CopyFrom(node)
        alone.input[0] = "activations"
        try:
            module, context = self._lowered([alone], [("activations", columns)], node.output[0])
        except Error:
            return None
        products = [op for op in module.walk() if isinstance(op, MatMulOp)]
        if len(products) != 1 or not isinstance(products[0].b.owner, ConstantOp):
            return None
        return weight_matrix(products[0], context.weights).T

    def _nodes(self, name: str) -> list[NodeProto] | None:
        """The nodes that compute a value from constants, in order; None if it needs anything else."""
        found: dict[str, NodeProto] = {}
        waiting = [name]
        while waiting:
            wanted = waiting.pop()
            node = self._producers.get(wanted)
            if wanted in self._constants or (node is not None and node.name in found):
                continue
            if node is None or len(found) == MAX_NODES or any(subgraphs(node)):
                return None
            found[node.name] = node
            waiting += [read for read in node.input if read]
        return [node for node in self.model.graph.node if node.name in found]

    def _lowered(
        self, nodes: list[NodeProto], inputs: list[tuple[str, int]], output: str
    ) -> tuple[ModuleOp, NeucContext]:
        """A model of some nodes, with inputs of rank 2 and so many columns, as `dense` operations."""
        read = {name for node in nodes for name in node.input}
        tensors = [tensor for name, tensor in self._constants.items() if name in read]
        given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", size]) for name, size in inputs]
        made = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(nodes, "weights", given, [made], tensors)
        part = helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version)
        context = NeucContext()
        module = import_onnx(part, context)
        LowerOnnxToDense().apply(context, module)
        return module, context
