"""The pass `place-npu`: integer products of ternary layers become functions that the array runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, StringAttr, UnitAttr
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from neuc.backends.npu.array_products import FREE, Layer, by_operand, is_open, parts_of, product_of, work_of
from neuc.backends.npu.emit import MACHINE, PLAN, SWITCH, block_program, plan_attribute
from neuc.backends.npu.emit_rows import RowWork
from neuc.backends.npu.finish_notes import finished_where, note_finishing, saved_bytes
from neuc.backends.npu.float_convs import expand_windows
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.left_behind import is_free, listed, note_the_rest
from neuc.backends.npu.padded_images import write_padded
from neuc.backends.npu.residual_notes import note_residuals
from neuc.backends.npu.tiling import Choice, Product, choose_plans
from neuc.backends.npu.window_choice import cut_where, note_windows, pixel_moves, windows_of, with_images
from neuc.dialects.context import store_of
from neuc.dialects.locations import node_names
from neuc.dialects.npu_windows import WindowsOp
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error
from neuc.passes.analysis.ternary_layers import FLOAT_LAYERS, MIN_K, reason_to_keep
from neuc.passes.module_facts import add_notes, set_fact
from neuc.passes.outlining import place
from neuc.runtime.npu.gemm_plan import GemmPlan
from neuc.runtime.npu.machine import Machine

EXECUTOR = "npu"
_TRIES = 16


@dataclass(frozen=True)
class PlaceNpu(ModulePass):
    """Move `ternary.accumulate`, with its `ternary.pack`, and `npu.matmul` into functions of executor ``npu``.

    Rules:
        1. A product with int8 activations and weights of few levels runs on the array: packed ternary codes where all
           levels are -1, 0 and 1, int8 otherwise.
        2. Products that read the same codes, or the same floats with constant weights, are one product with more
           columns: one dispatch.
        3. Tiles, spread and program are those that `tiling.py` finds cheapest for all products in turn; a function
           before which the array's program changes gets the attribute ``npu.switch``.
        4. `npu.requantize` and `npu.add_codes` behind a product go with it, and `ternary.im2col` or `npu.windows` in
           front of it where DMAs cut its windows, and what makes planes of the pixels these read; other `npu.windows`
           become dense operations.
        5. Integer products of fewer multiply-adds than `least` that a CPU can run stay there: a dispatch would cost
           more than they do. Everything else stays with the CPU, too; the report says which layers and why.

    Before and after::

        %p = ternary.pack %w … ; %a = ternary.accumulate %q, %p : …

        %a = func.call @npu0(%q) : …

    Options:
        machine: name of a machine, or path of its file.
        free: what a size left free is taken to be when tiles are chosen.
        least: products of fewer multiply-adds stay on the CPU.
    """

    name = "place-npu"
    machine: str = "npu-xdna2"
    free: int = FREE
    least: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        machine, store = find_machine(self.machine), store_of(ctx)
        main = next(f for f in op.ops if isinstance(f, func.FuncOp))
        shared = self._worth_a_dispatch(op, by_operand(main), machine, store)
        note_the_rest(op, main, machine, self.free)
        if not shared:
            if any(isinstance(found, RowWork) for found in main.body.block.ops):
                return
            why = f"least={self.least} is more than any product" if self.least else _no_levels(main, store)
            add_notes(op, f"nothing runs on {machine.name}: {why}")
            return
        products = tuple(with_images(layers, product_of(layers, self.free, store), self.free) for layers in shared)
        choice = self._fitting(machine, products)
        add_notes(op, _summary(shared, choice, machine, self.free))
        note_finishing(op, shared, choice, machine)
        note_windows(op, shared, choice)
        note_residuals(op, main, shared)
        behind, before = write_padded(op, shared, choice)
        rows: list[dict[str, object]] = []
        for number, (layers, product) in enumerate(zip(shared, products)):
            rows.append(_row(layers, product, choice, number, machine))
            moved, windows = _brought_together(layers), windows_of(layers)
            if windows is not None and choice.costs[number].cut:
                moved = [*(before.get(number) or pixel_moves(windows)), windows, *moved]
            moved += behind.get(number, [])
            function = place(op, moved, _segment(number), EXECUTOR)
            function.attributes[MACHINE] = StringAttr(self.machine)
            function.attributes[PLAN] = plan_attribute(choice.plans[number])
            if choice.plans[number] != choice.plans[number - 1]:  # the first follows the last of the run before
                function.attributes[SWITCH] = UnitAttr()
        for windows in [found for found in main.body.block.ops if isinstance(found, WindowsOp)]:
            expand_windows(windows)
        free = self.free if any(is_free(layer) for layers in shared for layer in layers) else 0
        set_fact(op, "npu", {"machine": machine.name, "digest": machine.digest(), "free": free, "layers": rows})

    def _worth_a_dispatch(
        self, module: ModuleOp, found: list[list[Layer]], machine: Machine, store: WeightStore
    ) -> list[list[Layer]]:
        """Those that are not small; a note says which are, and what dispatches they save."""
        small = [
            layers
            for layers in found
            if is_open(layers[0]) and work_of(product_of(layers, self.free, store)) < self.least
        ]
        if small:
            names = [node_names(layer)[0] if node_names(layer) else layer.name for layers in small for layer in layers]
            many, stay = ("products", "stay") if len(names) > 1 else ("product", "stays")
            saved = len(small) * machine.host.get("dispatch_us", 0.0)
            add_notes(
                module,
                f"{len(names)} {many} of fewer than {self.least} multiply-adds {stay} on the CPU, which saves "
                f"{saved:g} µs of dispatches: {listed(names)}",
            )
        return [layers for layers in found if layers not in small]

    def _fitting(self, machine: Machine, products: tuple[Product, ...]) -> Choice:
        """The cheapest plans whose programs the array really holds: they are placed, routed and checked here."""
        avoid: frozenset[GemmPlan] = frozenset()
        while True:
            choice = choose_plans(machine, products, avoid)
            unfit = next((plan for plan in dict.fromkeys(choice.plans) if not self._fits(plan, len(avoid))), None)
            if unfit is None:
                return choice
            avoid |= {unfit}

    def _fits(self, plan: GemmPlan, refused: int) -> bool:
        try:
            block_program(self.machine, plan)
        except Error:
            if refused >= _TRIES:
                raise
            return False
        return True


def _brought_together(layers: list[Layer]) -> list[Operation]:
    """Packs and products, the later ones moved up to the first, whose codes they read."""
    block, ops = layers[0].parent_block(), parts_of(layers[0])
    assert block is not None
    for product in layers[1:]:
        for op in parts_of(product):
            op.detach()
            block.insert_op_after(op, ops[-1])
            ops.append(op)
    return ops


def _summary(shared: list[list[Layer]], choice: Choice, machine: Machine, free: int) -> str:
    """What runs on the array, in how many programs, and what the alternatives would take."""
    layers, programs = sum(map(len, shared)), len(set(choice.plans))
    many = f"{layers} products run" if layers > 1 else "1 product runs"
    merged = f" in {len(shared)} dispatches" if layers > len(shared) else ""
    how = "one program for all" if programs == 1 else f"{programs} programs, {choice.switches} switches between them"
    done = sum(work_of(p) / (1 - cost.padding) for p, cost in zip(choice.products, choice.costs))
    padding = 1 - sum(map(work_of, choice.products)) / done
    open_sizes = any(is_free(layer) for layers in shared for layer in layers)
    sizes = f" with free sizes of {free} (fix them by --shape, or by free= of the target)" if open_sizes else ""
    single = "no single program fits them all, "
    if choice.one_program < math.inf:  # said already if it is what was chosen
        single = "" if programs == 1 else f"one program would take {choice.one_program * 1e3:.2f} ms, "
    return (
        f"{many} on {machine.name}{merged}, {how}; predicted {choice.seconds * 1e3:.2f} ms{sizes}: "
        f"{choice.seconds_of_dispatches * 1e3:.2f} ms are dispatches and switches, {padding:.0%} of the cores' work is "
        f"padding; {single}a program for each product {choice.own_programs * 1e3:.2f} ms"
    )


def _no_levels(main: func.FuncOp, store: WeightStore) -> str:
    """Why there are no products of integers, and the cure if there is one."""
    floats = [op for op in main.body.block.ops if isinstance(op, FLOAT_LAYERS)]
    if any(not reason_to_keep(op, store, MIN_K) for op in floats):
        return "no layer has few-level weights (--quantize ternary makes some)"
    return "no layer has few-level weights, and none can be made ternary" if floats else "there are no layers for it"


def _segment(number: int) -> str:
    return f"npu{number}"


def _row(layers: list[Layer], product: Product, choice: Choice, number: int, machine: Machine) -> dict[str, object]:
    """A product for the manifest: its layers, sizes, plan, and what it should take."""
    plan, cost = choice.plans[number], choice.costs[number]
    return {
        "segment": _segment(number),
        "products": len(layers),
        "nodes": [name for layer in layers for name in node_names(layer)],
        "m": product.m,
        "k": product.k * product.groups,
        "n": product.n,
        "groups": product.groups,
        "operands": product.operands,
        "tile": [plan.m, plan.k, plan.n],
        "spread": plan.spread,
        "cycles": round(cost.cycles),
        "microseconds": round(cost.cycles / machine.clock_hz * 1e6, 2),
        "limiter": cost.limiter,
        "ddr_bytes": cost.ddr_bytes,
        "padding": round(cost.padding, 4),
        "finished": finished_where(layers, product),
        "saved_bytes": saved_bytes(product, plan, machine),
        "windows": cut_where(layers, product, cost),
        "image": list(product.shape),
    }
