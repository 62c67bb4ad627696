"""Machine files: what comes with neuc is complete, and bad figures are refused with their field."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from neuc.backends.npu.known_machines import FOLDER, find_machine, machine_names
from neuc.backends.npu.target import place_xdna1
from neuc.errors import Error
from neuc.runtime.npu.machine_file import load_machine, machine_of


def test_the_machines_that_come_with_neuc():
    assert {"npu-dimc", "npu-loihi2", "npu-northpole", "npu-xdna1", "npu-xdna2"} == set(machine_names())
    sizes = {name: len(find_machine(name).tiles("core")) for name in machine_names()}
    assert (sizes["npu-xdna1"], sizes["npu-xdna2"], sizes["npu-northpole"], sizes["npu-loihi2"]) == (16, 32, 256, 128)
    assert find_machine("npu-xdna1-1col").cols == 1
    assert find_machine("npu-xdna1").mark_of("classes.core.dma.bytes_per_cycle")[0] == "spec"
    assert find_machine("npu-xdna2").mark_of("classes.core.dma.bytes_per_cycle")[0] == "inferred"
    assert find_machine("npu-xdna1").digest() != find_machine("npu-xdna2").digest()


def test_a_users_copy_is_a_machine(tmp_path: Path):
    text = (
        (FOLDER / "npu-xdna1.toml")
        .read_text()
        .replace('name = "npu-xdna1"', 'name = "mine"')
        .replace("hop = 2", "hop = 3")
    )
    path = tmp_path / "mine.toml"
    path.write_text(text)
    machine = find_machine(str(path))
    assert (machine.name, machine.timing["hop"]) == ("mine", 3)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("cols", 0, r"cols: 0 is outside \[1, 256\]"),
        ("cols", None, "field 'cols' is missing"),
        ("clock_hz", -1.0, "clock_hz: -1 is not positive"),
        ("clock_hz", 0, "is not positive"),
        ("clock_hz", float("nan"), "clock_hz: nan is no finite number"),
        ("timing.lock", float("inf"), "timing.lock: inf is no finite number"),
        ("timing.hop", -2, "timing.hop: -2 is negative"),
        ("timing.bd_setup", None, "field 'bd_setup' is missing"),
        ("timing.task_push", None, "field 'task_push' is missing"),
        ("timing.elementwise_lanes_8bit", 0, "elementwise_lanes_8bit: 0 is not positive"),
        ("ddr.bytes_per_second", None, "field 'bytes_per_second' is missing"),
        ("ddr.bytes_per_second", 0, "bytes_per_second: 0 is not positive"),
        ("rows", ["shim", "mem", "tensor"], "'tensor' is no tile class"),
        ("rows", [], "at least one row"),
        ("rows", ["mem", "shim", "core"], "mem has 6 ports North"),
        ("classes.core.kind", "gpu", "'gpu' is none of core, mem, shim"),
        ("classes.core.memory_bytes", -5, "memory_bytes"),
        ("classes.core.banks", 7, "cannot be 7 equal banks"),
        ("classes.core.reserved_bytes", 70000, "reserves 70000 of 65536"),
        ("classes.core.dma.bds", 3, "3 descriptors for 4 channels"),
        ("classes.mem.dma.bds", 47, "cannot be split evenly"),
        ("classes.core.ports.North", [5, 4], "core has 5 ports North"),
        ("classes.core.ports.East", [9, 9], "core has 9 ports East, but core beside it takes 4 from West"),
        ("classes.core.ports.Foo", [1, 1], "'Foo' is none of North, South"),
        ("classes.core.ports.DMA", [1, 1], r"2 S2MM and 2 MM2S channels, but ports DMA = \[1, 1\]"),
        ("classes.core.dma.s2mm", 3, "3 S2MM and 2 MM2S channels, but ports DMA"),
        ("classes.core.dma.bytes_per_cycle", 3, "3 is no multiple of 4"),
        ("name", "../../etc", "is no name"),
        ("provenance.tming", "spec: nobody", "'tming': there is no such field"),
        ("classes.core.ports.North", [6], r"expected \[masters, slaves\]"),
        ("classes.core.shared_memory", [[1, 1]], "one step to a neighbour"),
        ("classes.core.speed", 3, "unknown field 'speed'"),
        ("gemm.i8xi8->i8", {"peak_macs_per_cycle": 0, "cycles_per_output": 1}, "is not positive"),
        ("gemm.i8xi8->i8", {"peak_macs_per_cycle": 1, "cycles_per_output": -1}, "is negative"),
        ("provenance.timing", "measured by me", "expected 'MARK: source'"),
        ("provenance.clock_hz", None, "clock_hz: has no provenance"),
        ("format", 2, "outside"),
    ],
)
def test_bad_figures_are_named(path: str, value: object, message: str):
    data: dict[str, Any] = copy.deepcopy(dict(find_machine("npu-xdna1").data))
    *folders, last = path.split(".")
    inside = data
    for folder in folders:
        inside = inside[folder]
    if value is None:
        del inside[last]
    else:
        inside[last] = value
    with pytest.raises(Error, match=message) as caught:
        machine_of(data, "mine.toml")
    assert caught.value.code == "NEUC-E670"


def test_a_misspelt_field_is_named():
    data: dict[str, Any] = copy.deepcopy(dict(find_machine("npu-xdna1").data))
    data["timing"]["bd_setpu"] = data["timing"].pop("bd_setup")
    with pytest.raises(Error, match="field 'bd_setup' is missing; 'bd_setpu' is near it"):
        machine_of(data, "mine.toml")
    data["clok_hz"] = data.pop("clock_hz")
    with pytest.raises(Error, match=r"unknown field 'clok_hz' \(did you mean 'clock_hz'\?\)"):
        machine_of(data, "mine.toml")


def test_figures_that_nothing_reads_are_named(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text((FOLDER / "npu-xdna1.toml").read_text().replace("\nhop = 2", "\nhop = 2\nhopp = 3"))
    with pytest.raises(Error, match=r"mine\.toml: nothing reads timing\.hopp \(hint: did you mean hop\?\)") as caught:
        find_machine(str(path))
    assert caught.value.code == "NEUC-E670"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('family = "xdna"', 'family = "foo"', "family foo, generation 1: kernels are for xdna"),
        ("generation = 1", "generation = 9", "family xdna, generation 9"),
        ('rows = ["shim", "mem", ', 'rows = ["shim", ', "its rows are shim, core, core, core, core: products need"),
    ],
)
def test_products_have_no_place_on_other_arrays(old: str, new: str, message: str, tmp_path: Path):
    text = (FOLDER / "npu-xdna1.toml").read_text()
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(Error, match=message):
        place_xdna1({"machine": str(path)})


def test_files_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(Error, match=r"missing\.toml"):
        load_machine(tmp_path / "missing.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("cols = [")
    with pytest.raises(Error, match="is no TOML"):
        load_machine(bad)
    with pytest.raises(Error, match="unknown machine 'npu-xdna3'"):
        find_machine("npu-xdna3")
    with pytest.raises(Error, match="no partition of 9 columns"):
        find_machine("npu-xdna1-9col")
