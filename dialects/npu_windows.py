"""Windows of floats that an array's DMAs may cut, before it is known whether they do."""

from __future__ import annotations

from math import prod

from xdsl.dialects.builtin import IntegerAttr, TensorType, f32, i64
from xdsl.ir import SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dims import Dim, product
from neuc.dialects.store import dims_of, tensor_type
from neuc.dialects.ternary import WindowedOp
from neuc.dialects.ternary_types import Window


@irdl_op_definition
class WindowsOp(WindowedOp):
    """rows[n, p, :] = the window of x under output pixel p, ordered (group of channels, place in the kernel, channel).

    x is f32 [N, C, …], what pads hold is 0.
    """

    name = "npu.windows"
    x = operand_def(TensorType)
    groups = prop_def(IntegerAttr.constr(i64))
    result = result_def(TensorType)
    traits = traits_def(Pure())
    assembly_format = (
        "$x `kernel` $kernel `strides` $strides `pads` $pads `dilations` $dilations `groups` $groups attr-dict "
        "`:` type($x) `->` type($result)"
    )

    def __init__(self, x: SSAValue, window: Window, groups: int = 1) -> None:
        super().__init__(
            operands=[x],
            result_types=[tensor_type(f32, _rows(x, window))],
            properties={**window.properties(), "groups": IntegerAttr(groups, i64)},
        )

    @property
    def group_count(self) -> int:
        """Groups of channels."""
        return self.groups.value.data

    def verify_(self) -> None:
        """Floats, a window of their rank, groups that divide the channels."""
        dims = dims_of(self.x)
        window = self._verify_window(len(dims))
        shapes.check_element("x", self.x, f32)
        if self.group_count < 1 or (dims[1].is_static and dims[1].value % self.group_count):
            raise VerifyException(f"{dims[1]} channels cannot be cut into {self.group_count} groups")
        shapes.check("result", self.result, _rows(self.x, window), f32)


def _rows(x: SSAValue, window: Window) -> list[Dim]:
    batch, channels, *spatial = dims_of(x)
    return [batch, product(window.output_dims(spatial)), channels * prod(window.kernel)]
