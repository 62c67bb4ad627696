"""What a compiled model should take on its array: latency and its error band, utilisation, traffic, energy; by product.

Times are the planner's, from the manifest; what moves is counted from the placed programs (`runtime/npu/accounts.py`);
the band is how far published runs were from the machine file's predictions, as `benchmarks/npu_silicon.py` wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import cast

import neuc.backends.npu as backend
from neuc.compiler.npu.products import PlacedProduct
from neuc.errors import Error
from neuc.runtime.checked_json import Node
from neuc.runtime.npu.accounts import account_of, by_operand, energy_marks, energy_of, peak_seconds
from neuc.runtime.npu.figures import Figures, energy_text, summed, time_text, work_text
from neuc.runtime.npu.gemm_plan import OPERANDS
from neuc.runtime.npu.program_json import CODE, CURE

RESIDUALS = Path(cast(str, backend.__file__)).parent / "published_errors.json"
ANY_PRODUCTS = "products"
"""Published products of all types: for arrays where those of one type are all fitted to, or were never published."""
_FEW = 10


def array_figures(products: Sequence[PlacedProduct], free: int) -> dict[str, object]:
    """The whole model's figures as plain data; `free` is what sizes left free count as, 0 where there are none."""
    machine = products[0].machine
    parts = [product_figures(product) for product in products]
    bands = {kind: published_error(kind, machine.generation) for kind in dict.fromkeys(map(kind_of, products))}
    return {
        "machine": machine.name,
        "free_sizes_counted_as": free or None,
        **summed("", parts).to_json(),
        "energy_marks": energy_marks(machine),
        "published_errors": [found for found in bands.values() if found is not None],
        "kinds_without_published_rows": [kind for kind, found in bands.items() if found is None],
        "products": [{**part.to_json(), "nodes": product.facts["nodes"]} for part, product in zip(parts, products)],
    }


def product_figures(product: PlacedProduct) -> Figures:
    """What one dispatch of a product takes.

    Raises:
        Error: NEUC-E687, the manifest's figures are damaged.
    """
    machine, row = product.machine, Node(product.facts, f"segment {product.segment}", CODE, CURE)
    if product.operands and product.operands not in OPERANDS:
        raise Error(CODE, f"segment {product.segment}: no operands {product.operands}", hint=CURE)
    operands = OPERANDS.get(product.operands)
    m, k, n = row.get("tile").list_of(lambda item: item.integer(1, 1 << 24), 3)
    account = account_of(product.design, None if operands is None else (m, k, n))
    macs = 0
    if operands is not None:
        macs = int(str(row.get("m").value)) * int(str(row.get("k").value)) * int(str(row.get("n").value))
    dispatch, switch = machine.host.get("dispatch_us", 0.0) * 1e-6, machine.host.get("program_switch_us", 0.0) * 1e-6
    busy, change = row.get("cycles").number() / machine.clock_hz, product.switch * switch
    kind = "bf16" if operands is None else operands.a
    moved = sum(account.ddr.values())
    return Figures(
        segment=product.segment,
        dispatches=1,
        switches=int(product.switch),
        seconds=busy + dispatch + change,
        dispatch_seconds=dispatch,
        switch_seconds=change,
        array_seconds=busy,
        peak_seconds=0.0 if operands is None else peak_seconds(machine, operands.rate, macs),
        macs=macs,
        padded_macs=account.macs,
        ddr_bytes_by_operand=by_operand(account.ddr),
        energy_pj_by_source=energy_of(machine, kind, account.macs, account.sram_bytes, account.stream_byte_hops, moved),
    )


def kind_of(product: PlacedProduct) -> str:
    """Which published rows a product is to be compared with; codes of few levels count as the int8 they become."""
    if product.operands:
        return "bf16 products" if OPERANDS[product.operands].a == "bf16" else "int8 products"
    what = str(product.facts["operands"])
    return "softmax" if "softmax" in what else "layer norms" if "norm" in what else "element-wise functions"


def published_error(kind: str, generation: int) -> dict[str, object] | None:
    """How far published runs of a kind, on arrays of a generation, were from predictions; None if there are none.

    Where none is of a product's type, all products of that generation stand for it.
    """
    rows = cast("list[dict[str, object]]", _published()["errors"])
    found = {row["kind"]: row for row in rows if row["generation"] == generation}
    return found.get(kind) or (found.get(ANY_PRODUCTS) if kind.endswith(ANY_PRODUCTS) else None)


@lru_cache
def _published() -> Mapping[str, object]:
    return cast("Mapping[str, object]", json.loads(RESIDUALS.read_text(encoding="utf-8")))


def figure_lines(data: Mapping[str, object]) -> list[str]:
    """A model's figures in three lines: time and its band, utilisation and traffic, energy."""
    from neuc.runtime.npu.figures import figures_from

    figures, free = figures_from("", data), data["free_sizes_counted_as"]
    sizes = f" with free sizes of {free}" if free else ""
    marks = cast("Mapping[str, str]", data["energy_marks"])
    return [
        f"array, predicted{sizes}: {time_text(figures)}; {_band(data)}",
        f"array: {work_text(figures)}",
        f"array: {energy_text(figures, marks)}",
    ]


def _band(data: Mapping[str, object]) -> str:
    """How far published runs were off."""
    said: list[str] = []
    for row in cast("list[dict[str, float]]", data["published_errors"]):
        many = f"{row['rows']} published {row['kind']}"
        most = f"{row['nine_of_ten']:.0%} (9 of 10)" if row["rows"] >= _FEW else f"{row['largest']:.0%} (all)"
        said.append(f"{many} were within {row['median']:.0%} (median), {most}")
    none = cast("list[str]", data["kinds_without_published_rows"])
    if none:
        said.append(f"of {', '.join(none)} nothing is published for this array")
    return "; ".join(said)
