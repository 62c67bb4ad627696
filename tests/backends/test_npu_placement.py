"""Placement: proofs, bounds, baselines never beaten, infeasible cores with names; routing against an exact router."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest

from neuc.backends.npu.assign import assign_resources
from neuc.backends.npu.build import build
from neuc.backends.npu.check.checker import violations
from neuc.backends.npu.graph_ir import checked, design_of, graph_of
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.place.baselines import violations as misfits
from neuc.backends.npu.place.objective import circuits_by_arc, dimension_ordered, score
from neuc.backends.npu.place.placer import place_design
from neuc.backends.npu.place.problem import distance, problem_of
from neuc.backends.npu.route.exact import solve_routes
from neuc.backends.npu.route.fabric import Net, arcs_of, circuits, nets_of
from neuc.backends.npu.route.pathfinder import negotiate
from neuc.backends.npu.route.router import route_design
from neuc.errors import Error
from neuc.runtime.npu.program import Channel, Design, Port
from npu_designs import kernel, random_kernels, routed_example

XDNA1, XDNA2 = find_machine("npu-xdna1"), find_machine("npu-xdna2")
GAP_24_ON_32 = 0.15  # the gate: 24 kernels on 32 tiles, in 20 s
BUSY_SECONDS = 60.0  # the gates are 5 s and 20 s on a quiet machine (docs/npu.md); a busy one must not fail a proof


@pytest.mark.parametrize("seed", range(2))
def test_twelve_kernels_on_sixteen_tiles_are_optimal_with_proof(seed: int):
    placed = place_design(random_kernels(12, seed, "npu-xdna1"), XDNA1, seconds=BUSY_SECONDS)
    assert placed.optimal, placed.summary()
    assert "optimal" in placed.summary()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_twenty_four_kernels_on_thirty_two_tiles_are_near_their_bound(seed: int):
    placed = place_design(random_kernels(24, seed, "npu-xdna2"), XDNA2, seconds=2 * BUSY_SECONDS)
    assert max(placed.gaps) <= GAP_24_ON_32, placed.summary()


@pytest.mark.parametrize("seed", range(2))
def test_never_worse_than_row_major_and_first_free(seed: int):
    rng = random.Random(seed)
    machine, most = rng.choice([(XDNA1, 16), (XDNA2, 32)])
    placed = place_design(
        random_kernels(rng.randrange(4, most + 1), seed, machine.name), machine, prove=False, seed=seed
    )
    assert all(bound <= had for bound, had in zip(placed.bounds, placed.score))
    for baseline in (placed.row_major, placed.first_free):
        assert baseline is None or placed.score <= baseline


def test_the_same_seed_gives_the_same_placement():
    design = random_kernels(14, 5, "npu-xdna1")
    first, second = (place_design(design, XDNA1, prove=False, seed=3).design for _ in range(2))
    assert first == second


@pytest.mark.parametrize("seed", range(3))
def test_small_placements_equal_brute_force(seed: int):
    """Four kernels on a partition of one column: all 24 placements."""
    from itertools import permutations

    machine = find_machine("npu-xdna1-1col")
    design = random_kernels(4, seed, machine.name)
    problem = problem_of(design, machine)
    names, tiles = list(problem.domains), machine.tiles("core")
    best = min(score(problem, dict(zip(names, order))) for order in permutations(tiles, len(names)))
    placed = place_design(design, machine, seconds=BUSY_SECONDS)
    assert placed.score == best == placed.bounds


def _path(words: int, machine: str) -> Design:
    """Three kernels: a heavy channel from the first to the third, light ones to and from the second."""
    channels = (
        Channel("heavy", "a", ("c",), "i32", (words,)),
        Channel("one", "a", ("b",), "i32", (4,)),
        Channel("two", "b", ("c",), "i32", (4,)),
    )
    kernels = (
        kernel("a", {}, {"heavy": (1,), "one": (1,)}),
        kernel("b", {"one": (1,)}, {"two": (1,)}),
        kernel("c", {"heavy": (1,), "two": (1,)}, {}),
    )
    return Design("path", machine, kernels, channels)


def test_the_interval_comes_before_the_way():
    """A circle of three has one wire that is not between neighbours; it must not be the one that holds all up."""
    placed = place_design(_path(256, "npu-xdna1"), XDNA1, seconds=BUSY_SECONDS)
    at = {k.name: k.tile for k in placed.design.kernels}
    assert placed.score.interval == 40, "a core's 10 cycles and its call; the heavy channel needs no DMA"
    first, last = at["a"], at["c"]
    assert first is not None
    assert last is not None
    assert distance(first, last) == 1
    assert placed.optimal
    apart = dict(zip("abc", [(0, 2), (0, 3), (0, 4)]))
    assert score(problem_of(_path(256, "npu-xdna1"), XDNA1), apart).interval == 256


def test_congestion_comes_before_the_way():
    """Two channels out of one corner fit one column, but then they go through the same switch."""
    problem = problem_of(random_kernels(12, 0, "npu-xdna1"), XDNA1)
    for seed in range(20):
        places = dict(zip(problem.domains, random.Random(seed).sample(XDNA1.tiles("core"), 12)))
        ways = circuits_by_arc(problem, places)
        assert score(problem, places).congestion == max(ways.values())
        lengths = sum(distance(places[w.source], places[w.target]) for w in problem.wires)
        shared = sum(distance(places[w.source], places[w.target]) == 1 for w in problem.wires)
        assert sum(ways.values()) == lengths - shared, "one channel, one consumer: every hop is an arc"
    annealed = place_design(random_kernels(12, 0, "npu-xdna1"), XDNA1, prove=False)
    proven = place_design(random_kernels(12, 0, "npu-xdna1"), XDNA1, seconds=BUSY_SECONDS)
    assert proven.score <= annealed.score
    assert proven.score.congestion == 1


def test_circuits_of_memory_tiles_turn_where_there_are_ways_to_the_side():
    up = dimension_ordered((0, 1), (2, 3), XDNA1)
    assert up == [((0, 1), "North"), ((0, 2), "North"), ((0, 3), "East"), ((1, 3), "East")]
    down = dimension_ordered((2, 3), (0, 1), XDNA1)
    assert down == [((2, 3), "West"), ((1, 3), "West"), ((0, 3), "South"), ((0, 2), "South")]
    between = dimension_ordered((0, 1), (1, 1), XDNA1)
    assert between == [((0, 1), "North"), ((0, 2), "East"), ((1, 2), "South")]


def test_tiles_are_counted_last():
    """Two links fit one memory tile; the wires are as short either way, so that only the fourth figure tells."""
    placed = place_design(routed_example(XDNA1), XDNA1, seconds=BUSY_SECONDS)
    assert placed.optimal, placed.summary()
    assert placed.score.tiles == len({n.tile for n in placed.design.nodes})


def test_all_of_placement_ends_in_its_time():
    design = random_kernels(30, 3, "npu-xdna2")
    began = time.monotonic()
    placed = place_design(design, XDNA2, seconds=1.0)
    assert placed.row_major is None or placed.score <= placed.row_major
    assert time.monotonic() - began < BUSY_SECONDS


def test_pins_are_kept_and_impossible_pins_refused():
    design = random_kernels(6, 1, "npu-xdna1")

    def pinned(tile: tuple[int, int]) -> Design:
        first = replace(design.kernels[0], tile=tile, pinned=True)
        return replace(design, kernels=(first, *design.kernels[1:]))

    assert place_design(pinned((3, 5)), XDNA1).design.kernels[0].tile == (3, 5)
    with pytest.raises(Error, match=r"pinned to \(4, 2\), outside npu-xdna1") as caught:
        place_design(pinned((4, 2)), XDNA1)
    assert caught.value.code == "NEUC-E674"
    with pytest.raises(Error, match="a mem tile; it needs a core tile"):
        place_design(pinned((0, 1)), XDNA1)


def test_what_cannot_fit_is_named():
    with pytest.raises(Error, match="17 kernels, one a core: npu-xdna1 has 16 cores"):
        place_design(random_kernels(17, 0, "npu-xdna1"), XDNA1, prove=False)
    many = [Channel(f"x{i}", f"p{i}", ("k",), "i32", (4,)) for i in range(3)]
    ports = tuple(Port(f"p{i}", f"x{i}", "in") for i in range(3))
    three = Design("g", "npu-xdna1", (kernel("k", {c.name: (1,) for c in many}, {}),), tuple(many), (), ports)
    with pytest.raises(Error, match="3 inputs of kernel k need 3 S2MM channels, a core tile has 2") as caught:
        place_design(three, XDNA1)
    assert caught.value.code == "NEUC-E675"


def test_two_kernels_pinned_to_one_tile_are_named_without_a_solver():
    design = random_kernels(4, 0, "npu-xdna1")
    pinned = tuple(replace(k, tile=(0, 3), pinned=True) if k.name in ("k0", "k1") else k for k in design.kernels)
    with pytest.raises(Error, match=r"k0, k1 are pinned to tile \(0, 3\), which holds one kernel") as caught:
        place_design(checked(replace(design, kernels=pinned)), XDNA1, prove=False)
    assert caught.value.code == "NEUC-E675"


def test_nodes_on_one_tile_need_no_circuit():
    """From the host to the host: one shim tile will do, and the bound says no more than that."""
    through = Channel("x", "from_host", ("to_host",), "i32", (16,))
    ports = (Port("from_host", "x", "in"), Port("to_host", "x", "out"))
    placed = place_design(checked(Design("through", "npu-xdna1", (), (through,), ports=ports)), XDNA1)
    assert placed.score.congestion == 0
    assert placed.optimal


def test_a_minimal_core_names_the_pins_that_contradict_each_other():
    design = random_kernels(6, 1, "npu-xdna1")
    kernels = tuple(replace(k, tile=(1, 2), pinned=True) if i < 2 else k for i, k in enumerate(design.kernels))
    with pytest.raises(Error) as caught:
        place_design(replace(design, kernels=kernels), XDNA1)
    message = caught.value.message
    assert f"{kernels[0].name} is pinned to (1, 2)" in message
    assert f"{kernels[1].name} is pinned to (1, 2)" in message
    assert kernels[2].name + " is" not in message


@pytest.mark.parametrize("seed", range(3))
def test_everything_we_build_passes_the_independent_checker(seed: int):
    rng = random.Random(seed)
    machine = rng.choice([XDNA1, XDNA2])
    design = checked(random_kernels(rng.randrange(5, 15), seed, machine.name))
    placed = place_design(design, machine, prove=False).design
    routed = route_design(assign_resources(placed, machine), machine)
    assert violations(routed, machine) == []
    graph = graph_of(routed)
    graph.verify()
    assert design_of(graph) == routed


def _random_nets(seed: int, most: int) -> list[Net]:
    rng = random.Random(seed)
    cores, nets = XDNA1.tiles("core"), list[Net]()
    starts = [(tile, i) for tile in cores for i in range(2)]
    ends = [(tile, i) for tile in cores for i in range(2)]
    rng.shuffle(starts)
    rng.shuffle(ends)
    for i in range(rng.randrange(4, most)):
        sinks: list[tuple[tuple[int, int], int]] = []
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            end = next((e for e in ends if e[0] != starts[i][0] and e[0] not in {t for t, _ in sinks}), None)
            if end is not None:
                ends.remove(end)
                sinks.append(end)
        if sinks:
            nets.append(Net(f"n{i}", starts[i], tuple(sinks)))
    return nets


@pytest.mark.parametrize("lanes", [1, 2])
def test_the_router_succeeds_wherever_the_exact_one_proves_it_possible(lanes: int):
    """Few circuits between tiles make it hard; broadcasts are among the nets."""
    arcs = {arc: min(lanes, count) for arc, count in arcs_of(XDNA1).items()}
    routable = 0
    for seed in range(7):
        nets = _random_nets(seed, 8 * lanes)
        exact = solve_routes(nets, XDNA1, arcs, seconds=BUSY_SECONDS)
        ours = negotiate(nets, XDNA1, arcs)
        if exact is None:
            assert ours is None
            continue
        routable += 1
        assert ours is not None, f"seed {seed}: the exact router finds routes"
        assert all(sum(arc in tree for tree in ours.values()) <= arcs[arc] for arc in arcs)
        assert len(circuits(nets, ours, XDNA1)) == len(nets)
    assert routable >= 2


def test_building_reports_interval_and_congestion():
    from npu_designs import random_dataflow

    built = build(random_dataflow(3), XDNA1)
    assert built.interval > 0
    assert built.limiter
    assert 0 < built.congestion <= 1
    assert nets_of(built.design)


def test_too_much_memory_is_named():
    big = replace(random_kernels(3, 0, "npu-xdna1"))
    big = replace(big, channels=tuple(replace(c, shape=(9000,)) for c in big.channels))
    with pytest.raises(Error) as caught:
        build(big, XDNA1)
    assert caught.value.code in ("NEUC-E675", "NEUC-E677")
    assert "bytes" in caught.value.message


def test_where_all_is_pinned_nothing_is_searched():
    design = place_design(random_kernels(5, 2, "npu-xdna1"), XDNA1, prove=False).design
    pinned = replace(design, kernels=tuple(replace(k, pinned=True) for k in design.kernels))
    again = place_design(pinned, XDNA1)
    assert again.method == "all pinned"
    assert again.optimal
    assert again.design.kernels == pinned.kernels


def test_links_and_ports_are_placed_as_well_as_brute_force_does():
    """Every placement of three kernels, two links and two ports on two columns: the stages find the best of them."""
    from itertools import product

    machine = find_machine("npu-xdna1-2col")
    problem = problem_of(routed_example(machine), machine)
    names = list(problem.domains)
    every = (dict(zip(names, tiles)) for tiles in product(*problem.domains.values()))
    best = min(score(problem, places) for places in every if not misfits(problem, places))
    placed = place_design(routed_example(machine), machine, seconds=BUSY_SECONDS)
    assert placed.score == best
    assert placed.bounds == best, placed.summary()
