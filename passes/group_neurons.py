"""`group-neurons`: a site whose numbers are carried by several neurons becomes that many sites side by side.

How the first potentials of a group differ is said in `analysis/neuron_sites.py`; thresholds are calibration's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from neuc.dialects.context import store_of
from neuc.dialects.dense import ConvOp, MatMulOp, PoolOp, ReduceOp
from neuc.dialects.dense_attrs import NO_ACTIVATION
from neuc.dialects.locations import node_names
from neuc.dialects.store import constant_value, dims_of, make_constant
from neuc.dialects.weight_store import WeightStore
from neuc.passes.analysis.affine import is_affine, moves
from neuc.passes.analysis.neuron_sites import BIAS, GROUP, HALF, NAME, POTENTIAL, Site, site_of
from neuc.passes.map_building import map_of
from neuc.passes.scalar_builder import Scalar


@dataclass(frozen=True)
class GroupNeurons(ModulePass):
    """Write out groups of neurons: sites with `spike.group` = n > 1.

    1. The site becomes n sites of the same current, whose first potentials are 1/n of a threshold apart. What
       calibration adds to the current goes into the bias of the product that makes it, where it makes it for this site
       alone.
    2. Average pooling and movements run on each of the n.
    3. A product with constant weights becomes n products, one of each, with weights divided by n, and their sum.
    4. Whatever else reads the site reads the mean, each of the n times 1/n, summed.

    Equal up to rounding, as functions of numbers. As spikes a group of n tells n·T + 1 numbers apart in T steps instead
    of T + 1 (group neurons, Lv et al., ICASSP 2024), for n times as many neurons and operations of synapses.
    """

    name = "group-neurons"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Write out every group."""
        for function in op.ops:
            if isinstance(function, func.FuncOp) and not function.is_declaration:
                _Groups(store_of(ctx)).run(function)


@dataclass
class _Groups:
    """The walk over one function.

    Attributes:
        store: the weights.
        members: what stands for a value that is the mean of several.
        means: such means, where something needed them.
    """

    store: WeightStore
    members: dict[SSAValue, list[SSAValue]] = field(default_factory=dict[SSAValue, list[SSAValue]])
    means: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])

    def run(self, function: func.FuncOp) -> None:
        for op in function.body.block.ops:
            if (site := site_of(op)) is not None and site.group > 1:
                self._settle_bias(site)
        replaced: list[Operation] = []
        for op in list(function.body.block.ops):
            self._read_means(op, keep_first=self._runs_on_each(op))
            given = self.members.get(op.operands[0]) if op.operands else None
            site = site_of(op)
            if site is not None and site.group > 1:
                self.members[site.op.result] = self._written_out(site)
            elif given is None:
                continue
            elif isinstance(op, ConvOp | MatMulOp):
                op.results[0].replace_all_uses_with(self._summed(op, given))
            else:
                self.members[op.results[0]] = [self._on(op, member) for member in given]
            replaced.append(op)
        for op in reversed(replaced):
            op.detach()
            op.erase()

    def _written_out(self, site: Site) -> list[SSAValue]:
        start = site.parameter(POTENTIAL)
        start = np.full(site.channels, HALF, np.float32) if start is None else start
        made: list[SSAValue] = []
        for number, offset in enumerate(site.offsets, start=1):
            member = site.op.clone()
            del member.attributes[GROUP]
            if number > 1:
                member.attributes[NAME] = StringAttr(f"{site.name}.{number}")
            replace(site, op=member).write(POTENTIAL, start + np.float32(offset))
            made.append(self._insert(member, site.op))
        return made

    def _settle_bias(self, site: Site) -> None:
        shift, product = site.parameter(BIAS), site.op.inputs[0].owner
        if shift is None or not isinstance(product, ConvOp | MatMulOp) or product.bias is None:
            return
        bias = constant_value(product.bias, self.store)
        alone = site.op.inputs[0].has_one_use() and product.activation == NO_ACTIVATION
        if alone and bias is not None and bias.shape == shift.shape:
            product.operands[2] = self._constant(bias + shift, product)
            del site.op.attributes[BIAS]

    def _runs_on_each(self, op: Operation) -> bool:
        """Whether an operation can run on each member of its first operand."""
        if not op.operands or op.operands[0] not in self.members or site_of(op) is not None:
            return False
        if isinstance(op, ConvOp | MatMulOp):
            plain = op.activation == NO_ACTIVATION and not (isinstance(op, MatMulOp) and op.transpose_a is not None)
            return plain and constant_value(op.operands[1], self.store) is not None
        pools = isinstance(op, PoolOp | ReduceOp) and is_affine(op, [0])
        return len(op.operands) == 1 and (pools or moves(op))

    def _summed(self, op: ConvOp | MatMulOp, given: Sequence[SSAValue]) -> SSAValue:
        """A product of the mean of values."""
        weight = constant_value(op.operands[1], self.store)
        assert weight is not None
        part = self._constant(weight / np.float32(len(given)), op)
        parts: list[SSAValue] = []
        for number, member in enumerate(given):
            # The bias once: operands are x, weight and, where there is one, bias.
            operands = [member, part, *(op.operands[2:] if number == 0 else ())]
            clone = type(op).create(
                operands=operands,
                result_types=[op.results[0].type],
                properties=dict(op.properties),
                attributes=dict(op.attributes),
            )
            parts.append(self._insert(clone, op))
        return self._sum(parts, op)

    def _on(self, op: Operation, member: SSAValue) -> SSAValue:
        clone = op.clone()
        clone.operands[0] = member
        return self._insert(clone, op)

    def _read_means(self, op: Operation, *, keep_first: bool) -> None:
        for index, value in enumerate(op.operands):
            if value in self.members and not (keep_first and index == 0):
                op.operands[index] = self._mean(value, op)

    def _mean(self, value: SSAValue, reader: Operation) -> SSAValue:
        """The mean of members, made once, before its first reader."""
        if value not in self.means:
            given = self.members[value]
            part = 1.0 / len(given)
            scaled = [map_of([member], lambda x: x * part, dims_of(value)) for member in given]
            self.means[value] = self._sum([self._insert(op, reader) for op in scaled], reader)
        return self.means[value]

    def _sum(self, parts: Sequence[SSAValue], like: Operation) -> SSAValue:
        def body(*scalars: Scalar) -> Scalar:
            total = scalars[0]
            for scalar in scalars[1:]:
                total = total + scalar
            return total

        return self._insert(map_of(list(parts), body, dims_of(parts[0])), like)

    def _constant(self, array: np.ndarray, before: Operation) -> SSAValue:
        name = next(iter(node_names(before)), before.name)
        constant = make_constant(f"{name}.of_groups", np.array(array, np.float32, order="C"), self.store)
        return self._insert(constant, before)

    def _insert(self, op: Operation, before: Operation) -> SSAValue:
        op.location = before.location
        Rewriter.insert_op(op, InsertPoint.before(before))
        return op.results[0]
