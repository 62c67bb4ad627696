"""`lower-to-cpu`: native segments become `cpu.program`s, the kernels they launch `llvm.func`s beside them."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import func, llvm
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.lowering import lower_segment
from neuc.backends.cpu.target import is_cpu_target, isa_from_text, isa_text
from neuc.dialects.context import store_of
from neuc.dialects.cpu import CallOp


@dataclass(frozen=True)
class LowerToCpu(ModulePass):
    """Lower every segment whose `neuc.target` is a CPU target.

    1. Each tensor op becomes launches by its registered lowering; constants it needs packed go to the weight store.
    2. A kernel is built once per distinct specification and appended as an `llvm.func`.
    3. Calls of the segment become `cpu.call`s; the module gets `neuc.isa` and `neuc.level = "machine"`.

    Options:
        isa: ``avx512+avx512vnni+avx512vbmi``, ``avx2``, ``portable``, ``scalar``; ``host`` takes what this CPU has.
    """

    name = "lower-to-cpu"

    isa: str = "host"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Replace native segments by programs."""
        isa = isa_from_text(self.isa)
        kernels: dict[str, llvm.FuncOp] = {}
        lowered: set[str] = set()
        for segment in list(op.ops):
            if isinstance(segment, func.FuncOp) and is_cpu_target(segment):
                program = lower_segment(segment, isa, store_of(ctx), kernels)
                program.location = segment.location
                program.attributes.update(segment.attributes)
                block = segment.parent_block()
                assert block is not None
                block.insert_op_before(program, segment)
                segment.detach()
                segment.erase(safe_erase=False)
                lowered.add(program.sym_name.data)
        _call_programs(op, lowered)
        for kernel in kernels.values():
            op.body.block.add_op(kernel)
        op.attributes["neuc.isa"] = StringAttr(isa_text(isa))
        op.attributes["neuc.level"] = StringAttr("machine")


def _call_programs(module: ModuleOp, names: set[str]) -> None:
    """Make the calls of lowered segments `cpu.call`s."""
    for call in list(module.walk()):
        if isinstance(call, func.CallOp) and call.callee.string_value() in names:
            made = CallOp(call.callee.string_value(), call.arguments, call.result_types)
            made.location = call.location
            Rewriter.replace_op(call, made)


def module_isa(module: ModuleOp) -> Isa:
    """The instruction set a machine-level module was lowered for."""
    attribute = module.attributes.get("neuc.isa")
    return isa_from_text(attribute.data if isinstance(attribute, StringAttr) else "host")
