"""Depths for speed: as fast as with buffers without end, and no single one could be smaller."""

from __future__ import annotations

from dataclasses import replace

import pytest

from neuc.backends.npu.build import build
from neuc.backends.npu.fastest_depths import fastest_depths
from neuc.backends.npu.graph_ir import checked
from neuc.backends.npu.known_machines import find_machine
from neuc.errors import Error
from neuc.runtime.npu.deadlock import diagnose_design
from neuc.runtime.npu.program import Design
from neuc.runtime.npu.simulator import simulate, with_depths
from npu_designs import random_dataflow

MACHINE = find_machine("npu-xdna1")


def _cycles(design: Design, depths: dict[str, int]) -> float:
    run = simulate(with_depths(design, depths), MACHINE, {}, values=False)
    return float("inf") if run.deadlock is not None else run.cycles


def _live(seed: int) -> Design:
    design = checked(random_dataflow(seed))
    verdict = diagnose_design(design, MACHINE)
    return with_depths(design, verdict.cure) if verdict.cure else design


@pytest.mark.parametrize("seed", range(6))
def test_depths_reach_the_best_time_and_none_could_be_smaller(seed: int):
    design = _live(seed)
    found = fastest_depths(design, MACHINE)
    parts = [part.name for part in (*design.channels, *design.links)]
    endless = _cycles(design, dict.fromkeys(parts, 64))
    assert endless <= found.after <= found.before
    sized = with_depths(design, found.depths)
    assert _cycles(sized, {}) == pytest.approx(found.after)
    for part in (*sized.channels, *sized.links):
        if part.depth > 1:
            assert _cycles(sized, {part.name: part.depth - 1}) > found.after, f"{part.name} could be smaller"


def test_most_graphs_gain_all_there_is():
    """Where descriptors (16 a core) do not run out, the time is that of buffers without end."""
    reached, gains = 0, list[float]()
    for seed in range(6):
        design = _live(seed)
        found = fastest_depths(design, MACHINE)
        endless = _cycles(design, dict.fromkeys([p.name for p in (*design.channels, *design.links)], 64))
        reached += found.after == pytest.approx(endless)
        gains.append(found.before / found.after)
    assert reached >= 4
    assert max(gains) > 1.05


def test_depths_stay_within_memory():
    design = _live(3)
    big = replace(design, channels=tuple(replace(c, shape=(900,)) for c in design.channels))
    buffers = tuple(replace(b, shape=(900 * 18,)) for b in big.buffers)
    steps = tuple(replace(s, sizes=(900 * 18,)) if hasattr(s, "sizes") else s for s in big.sequence)
    params = tuple(replace(k, params={**k.params, "size": 900}) for k in big.kernels)
    big = checked(replace(big, buffers=buffers, sequence=steps, kernels=params))
    sized = with_depths(big, fastest_depths(big, MACHINE).depths)
    core = MACHINE.classes["core"]
    for kernel in sized.kernels:
        pools = sum(sized.channel(c).depth * sized.channel(c).nbytes for c in (*kernel.inputs, *kernel.outputs))
        assert pools <= core.memory_bytes - core.reserved_bytes


def test_a_graph_built_for_speed_passes_the_checker_and_a_dead_one_is_refused():
    built = build(checked(random_dataflow(3)), MACHINE, fastest=True, seconds=2.0)
    assert built.design.routes
    dead = next(d for d in (checked(random_dataflow(seed)) for seed in range(30)) if diagnose_design(d, MACHINE).hangs)
    with pytest.raises(Error) as caught:
        fastest_depths(dead, MACHINE)
    assert caught.value.code == "NEUC-E679"
