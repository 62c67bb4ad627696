"""Where products are finished, on the cores or on the CPU, why, and what traffic that saves: for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from xdsl.dialects.builtin import ModuleOp, StringAttr

from neuc.backends.npu.array_products import Layer
from neuc.backends.npu.code_chains import AT_RUN_TIME
from neuc.backends.npu.finish_products import UNFINISHED
from neuc.backends.npu.left_behind import listed
from neuc.backends.npu.tiling import Choice, Product, product_cost
from neuc.dialects.locations import node_names
from neuc.passes.module_facts import add_notes
from neuc.runtime.npu.float_finish import FloatFinish
from neuc.runtime.npu.gemm_plan import GemmPlan
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.requantize import Finish

_SUM_BYTES = 4


def finished_where(layers: Sequence[Layer], product: Product) -> str:
    """Who does what follows the sums of products of the same operand, for a table."""
    finish = product.finish
    if isinstance(finish, FloatFinish):
        return f"on the cores: {described(finish)}"
    if finish is not None:
        twice = "twice " if finish.stages > 1 else ""
        table = ", then through a table" if finish.tables else ""
        added = ""
        if finish.residual:
            added = f", then added to another tensor's codes, of whose pairs {finish.pairs} are corrected"
        return f"on the cores: requantised {twice}to int8, corrections a column: {finish.corrections}{table}{added}"
    reasons = [why.data for layer in layers if isinstance(why := layer.attributes.get(UNFINISHED), StringAttr)]
    return f"on the CPU: {reasons[0]}" if reasons else "on the CPU"


def saved_bytes(product: Product, plan: GemmPlan, machine: Machine) -> int:
    """Bytes of host memory less than if the product left as sums, with the same tiles."""
    if product.finish is None:
        return 0
    sums = product_cost(plan, machine, replace(product, finish=None))
    return sums.ddr_bytes - product_cost(plan, machine, product).ddr_bytes


def note_finishing(module: ModuleOp, shared: Sequence[Sequence[Layer]], choice: Choice, machine: Machine) -> None:
    """Notes: how many products the cores finish and what that saves; for the others, by reason, why the CPU does."""
    finished = [i for i, product in enumerate(choice.products) if isinstance(product.finish, Finish)]
    if finished:
        saved = sum(saved_bytes(choice.products[i], choice.plans[i], machine) for i in finished)
        whole = saved + sum(cost.ddr_bytes for cost in choice.costs)
        names = [_name(layer) for i in finished for layer in shared[i]]
        many = f"{len(names)} products leave" if len(names) > 1 else "1 product leaves"
        add_notes(
            module,
            f"{many} {machine.name} as int8 codes, requantised on its cores with bias and activation: {listed(names)}; "
            f"all products move {(whole - saved) / 1e3:.1f} kB to and from host memory, {whole / 1e3:.1f} kB if sums "
            "left",
        )
    _note_floats(module, shared, choice, machine)
    _note_scales(module, shared, choice)
    reasons: dict[str, list[str]] = {}
    for layers in shared:
        for layer in layers:
            why = layer.attributes.get(UNFINISHED)
            if isinstance(why, StringAttr):
                reasons.setdefault(why.data, []).append(_name(layer))
    for why, names in reasons.items():
        if why == AT_RUN_TIME:
            continue
        many = f"sums of {len(names)} products are" if len(names) > 1 else "the sums of 1 product are"
        add_notes(module, f"{many} finished on the CPU, because {why}: {listed(names)}")


def described(finish: FloatFinish) -> str:
    """What follows a product of floats on its cores, in words."""
    parts = [f"{finish.vectors} vectors of columns" if finish.vectors > 1 else "a vector of columns"]
    parts = parts[: finish.vectors]
    if finish.tables:
        parts.append(f"{len(finish.tables)} tables" if len(finish.tables) > 1 else "a table")
    if finish.stages and not parts:
        parts.append("limits")
    return ", ".join([*parts, "bf16" if finish.narrow else "float32"])


def _note_floats(module: ModuleOp, shared: Sequence[Sequence[Layer]], choice: Choice, machine: Machine) -> None:
    """What is done to products of floats before they leave, and the traffic that saves."""
    done = {i: p.finish for i, p in enumerate(choice.products) if isinstance(p.finish, FloatFinish)}
    if not done:
        return
    names = [_name(layer) for i, finish in done.items() if finish.stages for layer in shared[i]]
    tables = sum(len(shared[i]) for i, finish in done.items() if finish.tables)
    narrow = sum(len(shared[i]) for i, finish in done.items() if finish.narrow)
    saved = sum(saved_bytes(choice.products[i], choice.plans[i], machine) for i in done)
    whole = saved + sum(cost.ddr_bytes for cost in choice.costs)
    resident = any(choice.plans[i].resident for i in done)
    how = f" ({'in the program' if resident else 'sent with the weights'})" if tables else ""
    what = f"{listed(names)}; " if names else ""
    many = f"{len(names)} products are" if len(names) != 1 else "1 product is"
    add_notes(
        module,
        f"{many} finished in their own program on the cores of {machine.name}, with biases, scales and activations, "
        f"{tables} of them by tables{how}: {what}{narrow} leave as bf16; all products move "
        f"{(whole - saved) / 1e3:.1f} kB to and from host memory, {whole / 1e3:.1f} kB if float32 sums left",
    )


def _note_scales(module: ModuleOp, shared: Sequence[Sequence[Layer]], choice: Choice) -> None:
    """What it costs that scales are found at run time, and the cure."""
    names: list[str] = []
    sums = 0
    for layers, product in zip(shared, choice.products):
        late = [layer for layer in layers if layer.attributes.get(UNFINISHED) == StringAttr(AT_RUN_TIME)]
        names += map(_name, late)
        sums += product.m * product.n * product.groups * len(late) // len(layers)
    if names:
        many = f"sums of {len(names)} products are" if len(names) > 1 else "the sums of 1 product are"
        add_notes(
            module,
            f"{many} finished on the CPU, because {AT_RUN_TIME}: {listed(names)}; {sums} sums leave as "
            f"{sums * _SUM_BYTES / 1e3:.1f} kB where codes are {sums / 1e3:.1f} kB, and the CPU scales, activates and "
            "rounds each (fixed scales from --calib let the cores do that)",
        )


def _name(layer: Layer) -> str:
    return (node_names(layer) or (layer.name,))[0]
