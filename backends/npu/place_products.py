"""The pass `place-npu`: integer products of ternary layers become functions that the array runs."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, StringAttr, UnitAttr
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from neuc.backends.npu.emit import MACHINE, PLAN, SWITCH, block_program, plan_attribute, requantization, stages_of
from neuc.backends.npu.finish_notes import Layer, codes_of, finished_where, note_finishing, saved_bytes
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.left_behind import listed, note_the_rest, size
from neuc.backends.npu.tiling import Choice, Product, choose_plans
from neuc.dialects.context import store_of
from neuc.dialects.locations import node_names
from neuc.dialects.npu_products import MatmulOp
from neuc.dialects.store import ConstantOp, dims_of
from neuc.dialects.ternary import AccumulateOp, PackOp
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error
from neuc.passes.module_facts import add_notes, set_fact
from neuc.passes.outlining import place
from neuc.runtime.npu.gemm_plan import GemmPlan
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.requantize import in_turn

EXECUTOR = "npu"
FREE = 16
"""What a size left free is taken to be when plans are chosen, unless the target says otherwise."""
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
        4. Products of fewer multiply-adds than `least` stay with the CPU: a dispatch would cost more than they do.
        5. Everything else (quantisation, scales, biases, activations, grouped convolutions) stays with the CPU; the
           report says which layers and why.

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
        shared = self._worth_a_dispatch(op, _by_operand(main), machine, store)
        note_the_rest(op, main, machine, self.free)
        if not shared:
            why = f"least={self.least} is more than any product" if self.least else "no layer has few-level weights"
            add_notes(op, f"nothing runs on {machine.name}: {why} (--quantize ternary makes some)")
            return
        products = tuple(_product(layers, self.free, store) for layers in shared)
        choice = self._fitting(machine, products)
        add_notes(op, _summary(shared, choice, machine, self.free))
        note_finishing(op, shared, choice, machine)
        rows: list[dict[str, object]] = []
        for number, (layers, product) in enumerate(zip(shared, products)):
            rows.append(_row(layers, product, choice, number, machine))
            function = place(op, _brought_together(layers), _segment(number), EXECUTOR)
            function.attributes[MACHINE] = StringAttr(self.machine)
            function.attributes[PLAN] = plan_attribute(choice.plans[number])
            if choice.plans[number] != choice.plans[number - 1]:  # the first follows the last of the run before
                function.attributes[SWITCH] = UnitAttr()
        set_fact(op, "npu", {"machine": machine.name, "digest": machine.digest(), "layers": rows})

    def _worth_a_dispatch(
        self, module: ModuleOp, found: list[list[Layer]], machine: Machine, store: WeightStore
    ) -> list[list[Layer]]:
        """Those that are not small; a note says which are, and what dispatches they save."""
        small = [layers for layers in found if _work(_product(layers, self.free, store)) < self.least]
        if small:
            names = [node_names(layer)[0] if node_names(layer) else layer.name for layers in small for layer in layers]
            saved = len(small) * machine.host.get("dispatch_us", 0.0)
            add_notes(
                module,
                f"{len(names)} products of fewer than {self.least} multiply-adds stay on the CPU, which saves "
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


def _by_operand(main: func.FuncOp) -> list[list[Layer]]:
    """Products in order, those of the same codes or floats and groups of columns together."""
    found: dict[tuple[object, int], list[Layer]] = {}
    for op in main.body.block.ops:
        match op:
            case AccumulateOp() if isinstance(op.packed.owner, PackOp):
                codes = codes_of(op)
                alike = (op.q, *([] if codes is None else [stage.table for stage in stages_of(codes)]))
                found.setdefault((alike, op.packed.owner.packed.group_size), []).append(op)
            case MatmulOp():
                # Weights that are activations may be made later than the first product is.
                constant = isinstance(op.b.owner, ConstantOp) and len(dims_of(op.b)) == 2
                found.setdefault((op.a if constant else op, 0), []).append(op)
            case _:
                pass
    return list(found.values())


def _pack(product: AccumulateOp) -> PackOp:
    assert isinstance(product.packed.owner, PackOp)
    return product.packed.owner


def _parts(layer: Layer) -> list[Operation]:
    if not isinstance(layer, AccumulateOp):
        return [layer]
    codes = codes_of(layer)
    return [_pack(layer), layer, *([] if codes is None else stages_of(codes))]


def _brought_together(layers: list[Layer]) -> list[Operation]:
    """Packs and products, the later ones moved up to the first, whose codes they read."""
    block, ops = layers[0].parent_block(), _parts(layers[0])
    assert block is not None
    for product in layers[1:]:
        for op in _parts(product):
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
    done = sum(_work(p) / (1 - cost.padding) for p, cost in zip(choice.products, choice.costs))
    padding = 1 - sum(map(_work, choice.products)) / done
    open_sizes = any(dim.symbols for layers in shared for dim in dims_of(layers[0].operands[0]))
    sizes = f" with free sizes of {free} (fix them by --shape, or by free= of the target)" if open_sizes else ""
    return (
        f"{many} on {machine.name}{merged}, {how}; predicted {choice.seconds * 1e3:.2f} ms{sizes}: "
        f"{choice.seconds_of_dispatches * 1e3:.2f} ms are dispatches and switches, {padding:.0%} of the cores' work is "
        f"padding; one program would take {choice.one_program * 1e3:.2f} ms, each product's own "
        f"{choice.own_programs * 1e3:.2f} ms"
    )


def _segment(number: int) -> str:
    return f"npu{number}"


def _product(layers: list[Layer], free: int, store: WeightStore) -> Product:
    """What the array has to compute for products of the same operand."""
    first = layers[0]
    if isinstance(first, MatmulOp):
        return _float_product([layer for layer in layers if isinstance(layer, MatmulOp)], free)
    packed = [_pack(layer).packed for layer in layers if isinstance(layer, AccumulateOp)]
    finishes = [codes for layer in layers if (codes := codes_of(layer)) is not None]
    finish = in_turn(requantization(finishes, store)) if finishes else None
    operands = "ternary" if all(set(p.level_set) <= {-1, 0, 1} for p in packed) else "int8"
    groups = -(-packed[0].columns // packed[0].group_size)
    outputs = sum(p.plane_count * p.rows for p in packed)
    m = size(dims_of(first.q)[:-1], free)
    return Product(m, min(packed[0].group_size, packed[0].columns), outputs, groups, operands, finish)


def _float_product(layers: list[MatmulOp], free: int) -> Product:
    """With a matrix all of a's leading axes are rows; else each of them is a product of its own, a group."""
    a, b = dims_of(layers[0].a), dims_of(layers[0].b)
    columns = sum(size(dims_of(layer.result)[-1:], free) for layer in layers)
    k = size(a[-1:], free)
    if len(b) == 2:
        return Product(size(a[:-1], free), k, columns, 1, "bf16")
    return Product(size(a[-2:-1], free), k, columns, size(a[:-2], free), "bf16")


def _work(product: Product) -> int:
    return product.m * product.k * product.n * product.groups


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
    }
