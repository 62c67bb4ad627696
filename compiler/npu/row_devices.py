"""Which machine a row's device is: names of products, of generations and of partitions, as sources spell them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from neuc.backends.npu.known_machines import ARRAYS, find_machine
from neuc.runtime.npu.machine import Machine, Sku

_GENERATIONS: Mapping[str, str] = {
    **dict.fromkeys(("npu1", "xdna1", "xdna", "npu-xdna1", "aie2"), "npu-xdna1"),
    **dict.fromkeys(("npu2", "npu4", "xdna2", "npu-xdna2", "aie2p"), "npu-xdna2"),
}
_SPELLED = (
    (r"8845|hawk", "hawk_8845hs"),
    (r"8700g", "ryzen_8700g"),
    (r"7[89]40", "phoenix_7940hs"),
    (r"phoenix", "phoenix"),
    (r"halo.*pro|max.*pro", "strix_halo_max_pro"),
    (r"halo|max.*395", "strix_halo_max395"),
    (r"hx_?370", "strix_hx370"),
    (r"(?<!\d)365(?!\d)|ai_7_pro_360(?!\d)", "strix_365"),
    (r"krackan|ai_?7_350(?!\d)", "krackan_ai7_350"),
    (r"strix", "strix"),
    (r"npu_?1(?!\d)|xdna_?1(?!\d)", "npu1"),
    (r"npu_?[2456](?!\d)|xdna_?2(?!\d)", "npu2"),
)
"""What names of products have in them, the particular before the general."""


def known_devices() -> tuple[str, ...]:
    """Every name a row's device may have; partitions such as npu-xdna1-1col, and names with more in them, too."""
    products = sorted({name for machine in ARRAYS for name in find_machine(machine).skus})
    return (*sorted(_GENERATIONS), *products)


def machine_for(device: str) -> tuple[Machine | None, Sku | None, str]:
    """The machine, the product, and its name in machine files; a generation's first product with its own name.

    None, None and the device where it is unknown.
    """
    name = re.sub(r"[\s.]+", "_", device.strip().lower())
    partition = re.fullmatch(r"(.+)[-_](\d)col", name)
    if partition is not None:
        whole, sku, _ = machine_for(partition[1])
        if whole is None or sku is None or not 1 <= int(partition[2]) <= whole.cols:
            return None, None, device
        part = whole if int(partition[2]) == whole.cols else find_machine(f"{whole.name}-{partition[2]}col")
        return part, sku, device
    if name in _GENERATIONS:
        machine = find_machine(_GENERATIONS[name])
        return machine, next(iter(machine.skus.values())), device
    for machine in map(find_machine, ARRAYS):
        product = name if name in machine.skus else next((n for n in machine.skus if name and n.startswith(name)), "")
        if product:
            return machine, machine.skus[product], product
    spelled = re.sub(r"[^a-z0-9]+", "_", name)
    near = next((product for pattern, product in _SPELLED if re.search(pattern, spelled)), "")
    return machine_for(near) if near and near != name else (None, None, device)
