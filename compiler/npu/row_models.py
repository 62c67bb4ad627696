"""What the machine model says about a row of measurements, by its kind. No figure here is fitted to a row.

Words of `config` that count stand in docs/npu.md and in the help of `neuc npu validate`; `row_config.py` checks them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import partial

from neuc.backends.npu import timing_model as timing
from neuc.compiler.npu.gemm_rows import by_mlir_air, predict_gemm, predict_gemv, predict_kernel
from neuc.compiler.npu.row_config import as_known, config_faults, remarks_in, shape_fault, with_source
from neuc.compiler.npu.row_devices import known_devices, machine_for
from neuc.compiler.npu.row_fields import faults_in, in_unit, refuse, sizes_in, unit_fault
from neuc.compiler.npu.rows import Prediction, Row, kind_of
from neuc.compiler.npu.vector_rows import VECTOR_FUNCTIONS, predict_convolution, predict_vector
from neuc.runtime.npu.machine import Machine, Sku

_ANY_UNIT = "us"
"""For a row whose unit is wrong, to see what else is."""


def known_kinds() -> tuple[str, ...]:
    """Every kind of row that is predicted."""
    return tuple(_MODELS)


def predict(row: Row, *, own_rates: bool) -> Prediction:
    """What the model says about one row, or everything that is wrong with it.

    With `own_rates`, kernel rates that the row gives are not used.
    """
    said, row = row, replace(row, kind=kind_of(row.kind), config=as_known(with_source(row.config, row.source)))
    found = _predict(row, own_rates=own_rates)
    return replace(found, row=said)


def _predict(row: Row, *, own_rates: bool) -> Prediction:
    machine, sku, product = machine_for(row.device)
    model = _MODELS.get(row.kind)
    wrong = [row.fault]
    if machine is None:
        what = f"no machine model for device {row.device}" if row.device else "device is missing"
        wrong.append(f"{what}; known: {', '.join(known_devices())}")
    else:
        wrong += config_faults(row.config, machine)
    if model is None:
        near = get_close_matches(row.kind, _MODELS, 2, 0.6)
        what = f"no model predicts kind {row.kind}" if row.kind else "kind is missing"
        what += f", did you mean {' or '.join(near)}?" if near else ""
        wrong.append(f"{what}; known: {', '.join(_MODELS)}")
    wrong.append(unit_fault(row.unit))
    if machine is None or sku is None or model is None:
        return refuse(row, faults_in(*wrong))
    asked = replace(row, device=product, unit=_ANY_UNIT if wrong[-1] else row.unit)
    if own_rates:
        asked = replace(asked, config=re.sub(r"\brate=\S+", "", row.config))
    dispatch = re.search(r"\bdispatch=(\d{1,7}(?:\.\d+)?)us", row.config)
    if dispatch:
        sku = replace(sku, dispatch_us=float(dispatch[1]))
    elif by_mlir_air(row):
        sku = replace(sku, dispatch_us=machine.host["bare_dispatch_us"])
    found = replace(model(asked, machine, sku), row=row)
    if own_rates and "rate=" in row.config:
        what = "convolutions" if row.kind == "conv2d" else "such kernels"
        without = f"no kernel model of our own for {what}"
        found = replace(found, why_not=found.why_not.replace("give rate=", f"{without}: --rates given takes the row's"))
    why = faults_in(*wrong, *(() if found.why_not in wrong else (found.why_not,)))
    if not why:
        return found
    near = [f"config '{part}' is not read; nearest: {word}" for part, word in remarks_in(row.config) if word]
    return refuse(row, faults_in(why, *near))


def _shim(row: Row, machine: Machine, sku: Sku) -> Prediction:
    words = sizes_in(row.shape)
    if len(words) != 1:
        return refuse(row, shape_fault(row.shape, words, "words"))
    direction = "MM2S" if "MM2S" in row.config.upper() else "S2MM"
    tasks = re.search(r"K ?= ?(\d{1,6})\b", row.config)
    chained = row.kind == "shim_chained"
    late = round(machine.timing["shim_first_read"])
    if not chained and direction == "MM2S" and timing.waits_for_host_memory(machine, direction, words[0]):
        said = f"so short a read only waits for host memory, by chance {late} cycles more or less"
        return refuse(row, f"{said}; published runs take 838 to 2064 cycles, the median of 50 is 1654")
    each = partial(timing.shim_task_cycles, machine, direction, words[0])
    cycles = each(place="only" if not chained else "first" if "first" in row.config else "later")
    said, gap = "the task alone", machine.timing["shim_task_gap"]
    if chained and re.search(r"\bgaps?\b", row.config):
        cycles, said = gap, "what lies between two tasks"
    elif chained and tasks and not re.search("first|following|next", row.config):
        cycles = each(place="first") + (int(tasks[1]) - 1) * (gap + cycles)
        said = f"{tasks[1]} tasks and what lies between them"
    found = in_unit(row, cycles / sku.clock_hz, sku, 0, "", nbytes=words[0] * timing.WORD)
    chance = f", up to {late} cycles more where host memory answers late" if direction == "MM2S" else ""
    return replace(found, includes=f"{said}{'' if cycles == gap else chance}")


def _on_chip(row: Row, machine: Machine, sku: Sku) -> Prediction:
    words = sizes_in(row.shape)
    if len(words) != 1:
        return refuse(row, shape_fault(row.shape, words, "words"))
    hops = re.search(r"hops ?= ?(\d{1,3})\b", row.config)
    cycles = timing.on_chip_cycles(machine, words[0], int(hops[1]) if hops else 1)
    found = in_unit(row, cycles / sku.clock_hz, sku, 0, "", nbytes=words[0] * timing.WORD)
    return replace(found, includes="the transfer alone")


_MODELS: Mapping[str, Callable[[Row, Machine, Sku], Prediction]] = {
    "shim_single_bd": _shim,
    "shim_chained": _shim,
    "dma": _on_chip,
    "kernel": predict_kernel,
    "gemm": predict_gemm,
    "gemm_array": predict_gemm,
    "gemm_array_memory_bound": predict_gemm,
    "gemv": predict_gemv,
    "conv2d": predict_convolution,
    **dict.fromkeys(VECTOR_FUNCTIONS, predict_vector),
}
