"""The pass `place-npu`: integer products of ternary layers become functions that the array runs."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from neuc.backends.npu.emit import MACHINE, block_program, plan_for
from neuc.backends.npu.known_machines import find_machine
from neuc.dialects import dense
from neuc.dialects.dims import Dim
from neuc.dialects.locations import node_names
from neuc.dialects.store import dims_of
from neuc.dialects.ternary import AccumulateOp, ConvOp, LinearOp, PackOp
from neuc.passes.analysis.multiply_adds import multiply_adds
from neuc.passes.module_facts import add_notes, set_fact
from neuc.passes.outlining import place
from neuc.runtime.npu.gemm import blocks, kernel_cycles

EXECUTOR = "npu"
_SHOWN = 6


@dataclass(frozen=True)
class PlaceNpu(ModulePass):
    """Move each `ternary.accumulate`, with its `ternary.pack`, into a function of executor ``npu``.

    Rules:
        1. A product with int8 activations and weights of few levels runs on the array: packed ternary codes where all
           levels are -1, 0 and 1, int8 otherwise.
        2. Everything else (quantisation, scales, biases, activations, grouped convolutions) stays with the CPU; the
           report says which layers and why.

    Before and after::

        %p = ternary.pack %w … ; %a = ternary.accumulate %q, %p : …

        %a = func.call @npu0(%q) : …

    Options:
        machine: name of a machine, or path of its file.
    """

    name = "place-npu"
    machine: str = "npu-xdna2"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        machine = find_machine(self.machine)
        main = next(f for f in op.ops if isinstance(f, func.FuncOp))
        products = [
            o for o in main.body.block.ops if isinstance(o, AccumulateOp) and isinstance(o.packed.owner, PackOp)
        ]
        rows: list[dict[str, object]] = []
        for number, product in enumerate(products):
            pack = product.packed.owner
            assert isinstance(pack, PackOp)
            rows.append(_row(product, pack, self.machine))
            function = place(op, [pack, product], f"npu{number}", EXECUTOR)
            function.attributes[MACHINE] = StringAttr(self.machine)
        _note_the_rest(op, main)
        if not rows:
            add_notes(
                op, f"nothing runs on {machine.name}: no layer has few-level weights (--quantize ternary makes some)"
            )
            return
        block_program(self.machine, True)  # an array that cannot hold the program is told before weights are packed
        cycles = sum(float(str(row["cycles"])) for row in rows if row["cycles"] is not None)
        dispatch = len(rows) * machine.host.get("dispatch_us", 0.0) * 1e-6
        least = (cycles / machine.clock_hz + dispatch) * 1e3
        known = (
            f"; {least:.2f} ms at least, every free size being 1: {cycles:.3g} cycles of its cores, the rest dispatches"
        )
        many = f"{len(rows)} products run" if len(rows) > 1 else "1 product runs"
        add_notes(op, f"{many} on {machine.name}, one program for all{known}")
        set_fact(op, "npu", {"machine": machine.name, "digest": machine.digest(), "layers": rows})


def _note_the_rest(module: ModuleOp, main: func.FuncOp) -> None:
    """Say which layers are not the array's, by reason, and what work that leaves to the CPU."""
    reasons: dict[str, list[tuple[str, int]]] = {}
    for layer in main.body.block.ops:
        reason, work = _stays(layer), multiply_adds(layer, {})
        if reason and work:
            reasons.setdefault(reason, []).append(((node_names(layer) or (layer.name,))[0], work))
    for reason, layers in reasons.items():
        names = ", ".join(name for name, _ in layers[:_SHOWN]) + (" …" if len(layers) > _SHOWN else "")
        total = sum(work for _, work in layers)
        many = f"{len(layers)} layers stay" if len(layers) > 1 else "1 layer stays"
        work = f"{total} multiply-adds, every free size being 1"
        add_notes(module, f"{many} on the CPU, because {reason}: {names} ({work})")


def _stays(op: Operation) -> str:
    """Why a layer is not the array's; "" for operations that are no layers."""
    match op:
        case ConvOp() | dense.ConvOp() if op.group.value.data > 1:
            return "a grouped convolution is many small products"
        case ConvOp() | LinearOp():
            return "it is not tiled"
        case dense.ConvOp() | dense.MatMulOp() | dense.LstmOp():
            return "its operands are floats"
        case _:
            return ""


def _row(product: AccumulateOp, pack: PackOp, name: str) -> dict[str, object]:
    """A layer for the manifest: its product M x K x N (M for a batch of one) and the cycles of its cores."""
    machine = find_machine(name)
    trits = pack.packed
    n, k = trits.plane_count * trits.rows, trits.columns
    m = _samples(dims_of(product.q)[:-1])
    ternary = set(trits.level_set) <= {-1, 0, 1}
    plan = plan_for(machine, ternary=ternary)
    cycles = None
    if m is not None:
        big_m, big_k, big_n = blocks(plan, m, k, n)
        steps = big_k // plan.k
        cycles = (big_m // plan.block_m) * (big_n // plan.block_n) * sum(kernel_cycles(plan, machine, steps))
    return {"nodes": list(node_names(product)), "m": m, "k": k, "n": n, "ternary": ternary, "cycles": cycles}


def _samples(dims: list[Dim] | tuple[Dim, ...]) -> int | None:
    """Rows of a product with every symbol 1; None if that is no size."""
    total = 1
    for dim in dims:
        symbols = dict.fromkeys(dim.symbols, 1)
        total *= dim.evaluate(symbols)
    return total if total > 0 else None
