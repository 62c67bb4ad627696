"""What an artifact puts on an NPU array: products, chains, softmax, norms, as placed programs for planned sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error
from neuc.runtime.checked_json import Node
from neuc.runtime.npu.executor import finish_from, into_from, window_from
from neuc.runtime.npu.float_ends import float_finish_from, resident_tables
from neuc.runtime.npu.gemm import with_sizes, with_tables
from neuc.runtime.npu.gemm_plan import GemmPlan, blocks
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.machine_file import machine_of
from neuc.runtime.npu.program import Design
from neuc.runtime.npu.program_json import CODE, CURE, design_from_json
from neuc.runtime.npu.row_executor import plan_from
from neuc.runtime.npu.row_functions import checked_curve
from neuc.runtime.npu.rows import tokens_of, with_tokens
from neuc.runtime.npu.windows import Image
from neuc.runtime.program import OtherSegment, Program

_MOST = 1 << 24


@dataclass(frozen=True)
class PlacedProduct:
    """A product on the array: the segment's name, what the planner said of it, its machine and its program.

    ``operands`` are those of its kernels ("" where they multiply nothing); ``switch``: the array's program changes.
    """

    segment: str
    facts: Mapping[str, object]
    machine: Machine
    design: Design
    operands: str = ""
    switch: bool = False


class Placed(Protocol):
    """What has products: an artifact, or a program before it is one."""

    @property
    def manifest(self) -> Mapping[str, object]:
        """The manifest's JSON object."""
        ...

    @property
    def program(self) -> Program:
        """Its segments."""
        ...

    @property
    def weights(self) -> Mapping[str, NDArray[np.generic]]:
        """Arrays by key."""
        ...


@dataclass(frozen=True)
class PlacedParts:
    """A program that is no artifact yet."""

    manifest: Mapping[str, object]
    program: Program
    weights: Mapping[str, NDArray[np.generic]]


def free_sizes(artifact: Placed) -> int:
    """What sizes left free counted as when plans were chosen; 0 where there are none."""
    return Node(artifact.manifest["npu"], "npu", CODE, CURE).get("free").integer(0, _MOST)


def placed_products(artifact: Placed) -> list[PlacedProduct]:
    """The products of an artifact, in the order they run; none if it is for another target.

    Raises:
        Error: NEUC-E687, the artifact's data are damaged.
    """
    facts = artifact.manifest.get("npu")
    found: list[PlacedProduct] = []
    for row in Node(facts, "npu", CODE, CURE).get("layers").items() if facts is not None else []:
        name = row.get("segment").string()
        segment = artifact.program.segments.get(name)
        if not isinstance(segment, OtherSegment):
            raise Error(CODE, f"there is no product {name} on the array", hint=CURE)
        made = (_rows if segment.kind == "npu-rows" else _product)(name, segment, row, artifact)
        node = Node(segment.data, f"segment {name}", CODE, CURE)
        operands = "" if segment.kind == "npu-rows" else node.get("operands").string()
        found.append(replace(made, operands=operands, switch=node.get("switch").boolean()))
    return found


def _rows(name: str, segment: OtherSegment, row: Node, artifact: Placed) -> PlacedProduct:
    """A chain, softmax or norm, its tables in its kernels."""
    node = Node(segment.data, f"segment {name}", CODE, CURE)
    machine = machine_of(node.get("machine").value, f"segment {name}: machine")
    design, plan = design_from_json(node.get("program").value, f"segment {name}: program"), plan_from(node)
    lines = row.get("n").integer(1, _MOST) if plan.kind == "chain" else row.get("m").integer(1, _MOST)
    results = -(-lines // plan.width) if plan.kind == "chain" else lines
    curves = [checked_curve(artifact.weights[f"{name}.curve{i}"], size, name) for i, size in enumerate(plan.curves)]
    sized = with_tokens(design, plan, machine, tokens_of(machine, results, plan.rows), curves)
    return PlacedProduct(name, cast(Mapping[str, object], row.value), machine, sized)


def _product(name: str, segment: OtherSegment, row: Node, artifact: Placed) -> PlacedProduct:
    """A product, tables that are the program's in its kernels."""
    node = Node(segment.data, f"segment {name}", CODE, CURE)
    machine = machine_of(node.get("machine").value, f"segment {name}: machine")
    design = design_from_json(node.get("program").value, f"segment {name}: program")
    m, k, n, groups = (row.get(key).integer(1, _MOST) for key in ("m", "k", "n", "groups"))
    tile = node.get("tile").list_of(lambda item: item.integer(4, 4096), 3)
    operands, spread = (node.get(key).string() for key in ("operands", "spread"))
    tables, room = resident_tables(node, artifact.weights, name), node.get("room").integer(0, _MOST)
    finishing = node.get("finishing").boolean()
    plan = GemmPlan.on(machine, (tile[0], tile[1], tile[2]), operands, spread, finishing, room, bool(len(tables)))
    finish = finish_from(node.get("codes")) or float_finish_from(node.get("floats"))
    window, shape = (
        window_from(node.get("window"), plan.kind.a),
        row.get("image").list_of(lambda item: item.integer(1, _MOST), 4),
    )
    image = None if window is None else Image.of(window, tuple(shape), plan)
    if image is not None:
        m, k = image.rows, image.columns(plan.k) * groups
    into = into_from(node.get("into"))
    sized = with_sizes(design, plan, machine, blocks(plan, m, k // groups, n), groups, finish, image, into)
    return PlacedProduct(name, cast(Mapping[str, object], row.value), machine, with_tables(sized, tables.tolist()))
