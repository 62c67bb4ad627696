"""Every dialect, pass and target neuc knows, by name, loaded on first use.

This is the one place where something new is registered: one line each. No dialect, pass or target is defined here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import TYPE_CHECKING

from xdsl.dialects import get_all_dialects
from xdsl.ir import Dialect
from xdsl.passes import ModulePass
from xdsl.universe import Universe

from neuc.dialects.context import NeucContext
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error, Exit

if TYPE_CHECKING:
    from neuc.backends.cpu.target import CpuTarget
    from neuc.backends.paradigm_target import ParadigmTarget

# Stock xDSL dialects a neuc module may use, besides our own.
_STOCK_DIALECTS = ("arith", "builtin", "func", "llvm", "math")


def _dialect(module: str, name: str) -> Callable[[], Dialect]:
    def load() -> Dialect:
        found = getattr(import_module(f"neuc.dialects.{module}"), name)
        if not isinstance(found, Dialect):
            raise TypeError(f"neuc.dialects.{module}.{name} is not a dialect")
        return found

    return load


def _pass(module: str, name: str) -> Callable[[], type[ModulePass]]:
    def load() -> type[ModulePass]:
        found = getattr(import_module(f"neuc.{module}"), name)
        if not (isinstance(found, type) and issubclass(found, ModulePass)):
            raise TypeError(f"neuc.{module}.{name} is not a pass")
        return found

    return load


DIALECTS: dict[str, Callable[[], Dialect]] = {
    "cpu": _dialect("cpu", "Cpu"),
    "crossbar": _dialect("crossbar", "Crossbar"),
    "dense": _dialect("dense", "Dense"),
    "energy": _dialect("energy", "Energy"),
    "lut": _dialect("lut", "Lut"),
    "npu": _dialect("npu", "Npu"),
    "onnx": _dialect("onnx", "Onnx"),
    "spike": _dialect("spike", "Spike"),
    "store": _dialect("store", "Store"),
    "ternary": _dialect("ternary", "Ternary"),
}

PASSES: dict[str, Callable[[], type[ModulePass]]] = {
    "schedule-tiles": _pass("backends.crossbar.schedule", "ScheduleTiles"),
    "remap-stuck": _pass("backends.crossbar.remap", "RemapStuck"),
    "draw-converters": _pass("backends.crossbar.draw_converters", "DrawConverters"),
    "map-to-crossbar": _pass("passes.map_to_crossbar", "MapToCrossbar"),
    "insert-converters": _pass("passes.insert_converters", "InsertConverters"),
    "calibrate-inputs": _pass("passes.calibrate_inputs", "CalibrateInputs"),
    "color-blocks": _pass("passes.color_blocks", "ColorBlocks"),
    "convert-ann-to-snn": _pass("passes.convert_ann_to_snn", "ConvertAnnToSnn"),
    "expand-activations": _pass("passes.expand_activations", "ExpandActivations"),
    "expand-graded-spikes": _pass("passes.expand_graded_spikes", "ExpandGradedSpikes"),
    "expose-spike-state": _pass("passes.expose_spike_state", "ExposeSpikeState"),
    "fold-batch-norm": _pass("passes.fold_batch_norm", "FoldBatchNorm"),
    "fold-into-matmul": _pass("passes.fold_into_matmul", "FoldIntoMatMul"),
    "fuse-activation": _pass("passes.fuse_activation", "FuseActivation"),
    "fuse-layer-norm": _pass("passes.fuse_layer_norm", "FuseLayerNorm"),
    "fuse-maps": _pass("passes.fuse_maps", "FuseMaps"),
    "infer-symbolic-shapes": _pass("passes.infer_symbolic_shapes", "InferSymbolicShapes"),
    "lower-onnx-to-dense": _pass("passes.lower_onnx_to_dense", "LowerOnnxToDense"),
    "lower-to-cpu": _pass("backends.cpu.lower_to_cpu", "LowerToCpu"),
    "mark-neurons": _pass("passes.mark_neurons", "MarkNeurons"),
    "group-neurons": _pass("passes.group_neurons", "GroupNeurons"),
    "note-spike-code": _pass("backends.cpu.note_spike_code", "NoteSpikeCode"),
    "normalize-thresholds": _pass("passes.normalize_thresholds", "NormalizeThresholds"),
    "partition": _pass("passes.partition", "Partition"),
    "assign-dataflow": _pass("backends.npu.graph_passes", "AssignDataflow"),
    "check-dataflow": _pass("backends.npu.graph_passes", "CheckDataflow"),
    "place-dataflow": _pass("backends.npu.graph_passes", "PlaceDataflow"),
    "route-dataflow": _pass("backends.npu.graph_passes", "RouteDataflow"),
    "size-buffers": _pass("backends.npu.graph_passes", "SizeBuffers"),
    "finish-floats": _pass("backends.npu.finish_floats", "FinishFloats"),
    "narrow-results": _pass("backends.npu.finish_floats", "NarrowResults"),
    "hoist-maps": _pass("backends.npu.hoist_maps", "HoistMaps"),
    "bf16-rows": _pass("backends.npu.use_rows", "Bf16Rows"),
    "place-rows": _pass("backends.npu.place_rows", "PlaceRows"),
    "bf16-products": _pass("backends.npu.use_bf16", "Bf16Products"),
    "fold-codes": _pass("backends.npu.fold_codes", "FoldCodes"),
    "add-residuals": _pass("backends.npu.residuals", "AddResiduals"),
    "finish-products": _pass("backends.npu.finish_products", "FinishProducts"),
    "grouped-products": _pass("backends.npu.grouped_products", "GroupedProducts"),
    "place-npu": _pass("backends.npu.place_products", "PlaceNpu"),
    "place-tsu": _pass("backends.tsu.place", "PlaceTsu"),
    "place-barriers": _pass("backends.cpu.place_barriers", "PlaceBarriers"),
    "plan-memory": _pass("backends.cpu.plan_memory", "PlanMemory"),
    "pool-before-activation": _pass("passes.pool_before_activation", "PoolBeforeActivation"),
    "quantize-to-ternary": _pass("passes.quantize_to_ternary", "QuantizeToTernary"),
    "recognize-ternary": _pass("passes.recognize_ternary", "RecognizeTernary"),
    "choose-encoding": _pass("passes.choose_encoding", "ChooseEncoding"),
    "ternary-synapses": _pass("passes.ternary_synapses", "TernarySynapses"),
    "unroll-lstm": _pass("passes.unroll_lstm", "UnrollLstm"),
    "unroll-relaxation": _pass("passes.unroll_relaxation", "UnrollRelaxation"),
    "tile-lut": _pass("passes.tile_lut", "TileLut"),
}


def targets() -> dict[str, CpuTarget | ParadigmTarget]:
    """Every target, by name."""
    from neuc.backends.cpu.target import TARGETS
    from neuc.backends.paradigm_target import paradigm_targets

    return {**paradigm_targets(), **TARGETS}


def target(name: str) -> CpuTarget | ParadigmTarget:
    """The target called `name`; families other than the CPU's are looked at only if it is none of the CPU's.

    Raises:
        Error: NEUC-E001, there is none.
    """
    from neuc.backends.cpu.target import TARGETS

    if name in TARGETS:
        return TARGETS[name]
    known = targets()
    if name not in known:
        from neuc.backends.npu.known_machines import machine_names

        if name in machine_names():
            raise Error(
                "NEUC-E001",
                f"{name} is a machine that neuc predicts times of, no target",
                hint="docs/npu.md says what for; targets of its kind: npu-xdna1, npu-xdna2",
                exit_code=Exit.USAGE,
            )
        raise unknown_name("target", name, known)
    return known[name]


NEUC_UNIVERSE = Universe(all_dialects=dict(DIALECTS), all_passes=dict(PASSES))
"""What `xdsl-opt` and `xdsl-gui` find through the entry-point group ``xdsl.universe``."""


def new_context(weights: WeightStore | None = None, *, allow_unregistered: bool = False) -> NeucContext:
    """A context that parses every dialect of a neuc module; each loads when the text first uses it."""
    context = NeucContext(allow_unregistered, weights=WeightStore() if weights is None else weights)
    stock = get_all_dialects()
    for name in _STOCK_DIALECTS:
        context.register_dialect(name, stock[name])
    for name, factory in DIALECTS.items():
        context.register_dialect(name, factory)
    return context


def all_passes() -> dict[str, Callable[[], type[ModulePass]]]:
    """Our passes and those of every other installed xDSL universe, stock xDSL's included."""
    return dict(Universe.get_multiverse().all_passes)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that offers the known names most like `name`, or all of them."""
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=2, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(choices)}"


def unknown_name(kind: str, name: str, known: Iterable[str]) -> Error:
    """The error for a name nothing is registered under."""
    return Error("NEUC-E001", f"unknown {kind} {name!r}", hint=nearest(name, known), exit_code=Exit.USAGE)
