"""Operations of a spiking network as nodes of NIR: values are sums of nodes, and what has no node is collected.

Which operations there are to translate, and what comes in and goes out, is the business of `nir_graph.py`; numbers of
neurons are that of `nir_neurons.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from xdsl.dialects import arith
from xdsl.ir import Operation, SSAValue

from neuc.compiler.exporters.nir_neurons import Inexpressible, NirNode, fires_above
from neuc.dialects import dense, spike
from neuc.dialects.locations import node_names
from neuc.dialects.store import ConstantOp, constant_array, dims_of
from neuc.dialects.ternary import WeightOp
from neuc.dialects.ternary_types import TritsType
from neuc.dialects.ternary_weights import weight_arrays
from neuc.dialects.weight_store import WeightStore
from neuc.errors import NodeRef

Array = np.ndarray


@dataclass(frozen=True)
class Late:
    """What a state held when the step began: number `index` of the loop's states."""

    index: int


Refs = tuple["str | Late", ...]
"""The nodes whose sum a value is."""


@dataclass
class Translation:
    """Nodes and edges made so far.

    Attributes:
        store: the weights.
        dt: seconds in a step.
        nodes: the nodes by name.
        pending: edges; what comes from a state is looked up at the end.
        notes: what a reader should know.
        problems: operations without a node.
        spikes: the events of each node that spikes.
        refs: what each value is the sum of.
        folded: gains and offsets of values that only a neuron reads, which become part of it.
    """

    store: WeightStore
    dt: float
    nodes: dict[str, NirNode] = field(default_factory=dict[str, NirNode])
    pending: list[tuple[str | Late, str]] = field(default_factory=list["tuple[str | Late, str]"])
    notes: list[str] = field(default_factory=list[str])
    problems: list[NodeRef] = field(default_factory=list[NodeRef])
    spikes: dict[str, SSAValue] = field(default_factory=dict[str, SSAValue])
    refs: dict[SSAValue, Refs] = field(default_factory=dict["SSAValue", "Refs"])
    folded: dict[SSAValue, tuple[Array, Array]] = field(default_factory=dict["SSAValue", "tuple[Array, Array]"])

    def visit(self, op: Operation) -> None:
        """Make the node of an operation, or note why there is none."""
        if isinstance(op, (ConstantOp, WeightOp, spike.YieldOp, spike.SilenceOp, dense.BroadcastOp)):
            return
        flows = any(value in self.refs for value in op.operands)
        try:
            self.translate(op)
        except Inexpressible as reason:
            if flows:  # else it computes something from constants, which matters if somebody reads it
                self.problem(op, str(reason))
                self.refs |= dict.fromkeys(op.results, ())  # so that what follows is not told, too

    def translate(self, op: Operation) -> None:
        """Make the node of an operation without a state.

        Raises:
            Inexpressible: there is none.
        """
        match op:
            case spike.LinearOp():
                self._affine(op, op.x, self._weight(op.weight), op.bias)
            case dense.MatMulOp():
                self._matmul(op)
            case spike.ConvOp():
                self._conv(op, op.x, op.weight, op.bias, op)
            case dense.ConvOp():
                _plain(op.activation)
                self._conv(op, op.x, op.w, op.bias, op)
            case spike.ScaleOp():
                self._scale(op)
            case spike.SumPoolOp():
                kernel, pads = op.kernel.get_values(), symmetric(op.pads.get_values())
                if len(kernel) != 2:
                    raise Inexpressible("NIR sums over two axes only")
                sizes = {"kernel_size": kernel, "stride": op.strides.get_values(), "padding": pads}
                fields = {name: np.array(value) for name, value in sizes.items()}
                self.link(op, NirNode("SumPool2d", fields), op.x)
            case dense.ReshapeOp():
                self._reshape(op)
            case dense.MapOp():
                self._map(op)
            case spike.ThresholdOp():
                theta = np.broadcast_to(self.array(op.threshold), self.shape(op.x, 1))
                above = fires_above(theta, op.fire.data is spike.Fire.GE)
                self.spikes[self.link(op, NirNode("Threshold", {"threshold": above}), op.x)] = op.events
            case _:
                raise Inexpressible(NO_NODE.get(op.name, "NIR has no such node"))

    def _matmul(self, op: dense.MatMulOp) -> None:
        _plain(op.activation)
        weight = self.array(op.b) * np.float32(op.alpha.value.data)
        if op.transpose_a is not None or weight.ndim != 2:
            raise Inexpressible("NIR multiplies by constant matrices only")
        self._affine(op, op.a, weight if op.transpose_b is not None else weight.T, op.bias)

    def _affine(self, op: Operation, x: SSAValue, weight: Array, bias: SSAValue | None) -> None:
        fields = {"weight": weight.astype(np.float32)}
        if bias is None:
            self.link(op, NirNode("Linear", fields), x)
            return
        fields["bias"] = np.broadcast_to(self.array(bias), weight.shape[:1]).astype(np.float32)
        self.link(op, NirNode("Affine", fields), x)

    def _conv(
        self, op: Operation, x: SSAValue, w: SSAValue, bias: SSAValue | None, window: spike.ConvOp | dense.ConvOp
    ) -> None:
        weight, axes, group = self._weight(w), len(dims_of(x)) - 2, window.group.value.data
        if axes not in (1, 2):
            raise Inexpressible(f"NIR has no convolution over {axes} axes")
        if isinstance(window, spike.ConvOp) and window.kernel is not None:
            channels = dims_of(x)[1].value // group
            weight = weight.reshape(weight.shape[0], channels, *window.kernel.get_values())
        given = np.zeros(weight.shape[0], np.float32) if bias is None else self.array(bias).astype(np.float32)
        shape, dilations = self.shape(x, 1)[1:], window.dilations.get_values()
        weight, pads = evenly_padded(weight, window.pads.get_values(), dilations)
        sizes = (window.strides.get_values(), pads, dilations)
        stride, padding, dilation = (tuple(s) if axes == 2 else s[0] for s in sizes)
        fields: dict[str, Any] = {
            "input_shape": shape if axes == 2 else shape[0],
            "weight": weight.astype(np.float32),
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": group,
            "bias": given,
        }
        self.link(op, NirNode(f"Conv{axes}d", fields), x)

    def _scale(self, op: spike.ScaleOp) -> None:
        shape = self.shape(op.x, 1)
        weight = np.broadcast_to(self.array(op.weight), shape).astype(np.float64)
        bias = np.broadcast_to(np.zeros(()) if op.bias is None else self.array(op.bias), shape).astype(np.float64)
        users = [use.operation for use in op.current.uses]
        if len(users) == 1 and isinstance(users[0], spike.MembraneOp) and users[0].current_value is op.current:
            self.refs[op.current] = self.of(op.x)
            self.folded[op.current] = weight, bias
        elif (weight == 1).all() and not bias.any():
            self.refs[op.current] = self.of(op.x)
        elif bias.any():
            if len(shape) != 1:
                raise Inexpressible("NIR's Scale has no bias")
            fields = {"weight": np.diag(weight).astype(np.float32), "bias": bias.astype(np.float32)}
            self.link(op, NirNode("Affine", fields), op.x)
        else:
            self.link(op, NirNode("Scale", {"scale": weight.astype(np.float32)}), op.x)

    def _reshape(self, op: dense.ReshapeOp) -> None:
        before, after = self.shape(op.x, 1), self.shape(op.result, 1)
        if before == after:
            self.refs[op.result] = self.of(op.x)
            return
        for start in range(len(before)):
            for end in range(start, len(before)):
                flat = (*before[:start], int(np.prod(before[start : end + 1])), *before[end + 1 :])
                if flat == after:
                    fields: dict[str, Any] = {"input_type": port("input", before), "start_dim": start, "end_dim": end}
                    self.link(op, NirNode("Flatten", fields), op.x)
                    return
        raise Inexpressible(f"{list(before)} to {list(after)} is no Flatten")

    def _map(self, op: dense.MapOp) -> None:
        body = list(op.body.block.ops)
        sums = len(body) == 2 and isinstance(body[0], arith.AddfOp) and set(body[0].operands) == set(op.body.block.args)
        shapes = {self.shape(value, 1) for value in op.inputs}
        if not sums or len(op.inputs) != 2 or len(shapes) != 1 or any(v not in self.refs for v in op.inputs):
            raise Inexpressible("NIR has no arithmetic but sums of what comes together")
        first, second = self.of(op.inputs[0]), self.of(op.inputs[1])
        ones = NirNode("Scale", {"scale": np.ones(self.shape(op.result, 1), np.float32)})
        # There is no edge twice: what is added to itself goes another way, too.
        others = [self.add(self.free_name("again"), ones, (ref,)) if ref in first else ref for ref in second]
        self.refs[op.result] = (*first, *others)

    # Values and nodes

    def array(self, value: SSAValue) -> Array:
        """The numbers behind a parameter."""
        owner = value.owner
        if isinstance(owner, ConstantOp):
            return constant_array(owner, self.store)
        if isinstance(owner, dense.BroadcastOp):
            return self.array(owner.x)
        raise Inexpressible("a parameter is computed, and NIR's are constants")

    def _weight(self, value: SSAValue) -> Array:
        if not isinstance(value.owner, WeightOp):
            return self.array(value)
        trits, scales = weight_arrays(value.owner, self.store)
        type_ = value.owner.result.type
        assert isinstance(type_, TritsType)
        groups = np.arange(trits.shape[2]) // type_.group_size
        return np.sum(trits * scales[:, :, groups], axis=0)

    def shape(self, value: SSAValue, lead: int) -> tuple[int, ...]:
        """The shape of a value without its first `lead` dims, which are samples or steps and samples."""
        dims = dims_of(value)[lead:]
        if not all(d.is_static for d in dims):
            raise Inexpressible(f"its shape has sizes only run time knows: {', '.join(map(str, dims))}")
        return tuple(d.value for d in dims)

    def of(self, value: SSAValue) -> Refs:
        """The nodes whose sum a value is."""
        found = self.refs.get(value)
        if found is None:
            raise Inexpressible("it reads something that has no node")
        return found

    def name(self, op: Operation) -> str:
        """A free name for the node of an operation: what its ONNX or NIR node was called, if it had one."""
        names = node_names(op)
        return self.free_name((names[0] if names else op.name.partition(".")[2]).replace("/", "_").replace(".", "_"))

    def free_name(self, base: str) -> str:
        """`base`, or `base` with a number if there is a node of that name."""
        name, number = base, 1
        while name in self.nodes:
            name, number = f"{base}_{number}", number + 1
        return name

    def link(self, op: Operation, node: NirNode, x: SSAValue) -> str:
        """Add the node of an operation that reads x, and return its name."""
        name = self.add(self.name(op), node, self.of(x))
        self.refs[op.results[0]] = (name,)
        return name

    def add(self, name: str, node: NirNode, refs: Refs) -> str:
        """Add a node with edges from `refs`, and return its name."""
        self.nodes[name] = node
        self.pending += [(ref, name) for ref in refs]
        return name

    def problem(self, op: Operation, reason: str) -> None:
        """Note that an operation has no node."""
        names = node_names(op)
        self.problems.append(NodeRef(names[0] if names else op.name, op.name, reason))


NO_NODE = {
    "spike.multi_threshold": "NIR has no signed or graded spikes",
    "spike.differential": "NIR has no signed or graded spikes",
    "spike.max_pool": "NIR has no max-pooling",
    "spike.expectation": "NIR has no functions of means over time",
    "spike.adaptive": "NIR has no adaptive threshold",
    "spike.alpha": "NIR has no alpha synapse",
}


def _plain(activation: dense.ActivationAttr) -> None:
    if activation.kind.value != "none":
        raise Inexpressible(f"NIR has no {activation.kind.value}")


def symmetric(pads: Sequence[int]) -> list[int]:
    """Pads (begins then ends) as NIR has them, one for each axis."""
    n = len(pads) // 2
    if list(pads[:n]) != list(pads[n:]):
        raise Inexpressible(f"NIR pads both ends alike, not {list(pads)}")
    return list(pads[:n])


def evenly_padded(weight: Array, pads: Sequence[int], dilations: Sequence[int]) -> tuple[Array, list[int]]:
    """A kernel [M, C, ...] with zeros on the side that is padded less, and pads that are the same on both sides."""
    n = len(dilations)
    widths, even = [(0, 0), (0, 0)], [max(pads[i], pads[i + n]) for i in range(n)]
    for i, dilation in enumerate(dilations):
        (before, rest), (after, others) = (divmod(even[i] - pads[j], dilation) for j in (i, i + n))
        if rest or others:
            raise Inexpressible(f"NIR pads both ends alike, not {list(pads)}")
        widths.append((before, after))
    return np.pad(weight, widths), even


def port(name: str, shape: Sequence[int]) -> Any:
    """The type of an Input, an Output or a Flatten."""
    return {name: np.array(shape)}
