"""The CPU targets: what each is, which instruction set it uses, and the passes that lower to it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from xdsl.dialects.builtin import StringAttr
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from neuc.backends.cpu.isa import FetchOrder, Isa
from neuc.backends.cpu.rates import rates_of
from neuc.errors import Error, Exit
from neuc.runtime.cpu_features import host_features

TARGET_ATTRIBUTE = "neuc.target"


@dataclass(frozen=True)
class CpuTarget:
    """One CPU target.

    Attributes:
        name: how the user calls it.
        summary: one line for ``neuc targets``.
        encoding: of ternary weights, one of `dialects/ternary_encodings.py`; ``auto`` chooses among
            those that `rates.py` has for the instruction set. Weights whose levels it cannot hold get another
            (`passes/tile_lut.py`).
        default_quantize: what ``--quantize`` means when it is not given.
        scalar: use the one-lane reference kernels.
        relaxes: prepares `energy` models for kernels first.
        spikes: says in the report how spiking networks run.
    """

    name: str
    summary: str
    encoding: str
    default_quantize: str
    scalar: bool = False
    relaxes: bool = False
    spikes: bool = False

    def isa(self) -> Isa:
        """The instruction set this target uses on this machine."""
        return Isa.scalar() if self.scalar else host_isa()

    def encodings(self, isa: Isa) -> tuple[str, ...]:
        """The ternary encodings to choose from on `isa`, the preferred first."""
        return tuple(rates_of(isa)) if self.encoding == "auto" else (self.encoding,)

    def advice(self, isa: Isa) -> str | None:
        """What to tell a user of this target whose ternary layers another target would run faster.

        From measured kernel rates, `benchmarks/kernels_ternary.py`: with vectors, direct products win for several rows
        of activations; at one row the look-up tables read fewer bytes and win on large matrices.
        """
        if self.encoding not in ("tl1", "tl2") or self.scalar:
            return None
        if isa.f32_lanes >= 8:
            return (
                f"--target cpu runs ternary layers with direct i2 kernels, which are faster than {self.encoding} for "
                f"batches of several rows on this instruction set; tl2 is faster for one row of large matrices"
            )
        return f"--target cpu runs ternary layers with direct i2 kernels, faster than {self.encoding} without AVX2"

    def pipeline(self, isa: Isa | None = None, *, group: int = 0, bm: int = 0, bk: int = 0) -> list[ModulePass]:
        """The passes from the paradigm level to the machine level."""
        from neuc.backends.cpu.lower_to_cpu import LowerToCpu
        from neuc.backends.cpu.place_barriers import PlaceBarriers
        from neuc.backends.cpu.plan_memory import PlanMemory
        from neuc.passes.choose_encoding import ChooseEncoding
        from neuc.passes.tile_lut import TileLut

        chosen = isa or self.isa()
        first, *others = self.encodings(chosen)
        choose = [ChooseEncoding((first, *others), tuple(rates_of(chosen).values()))] if others else []
        tile = TileLut(encoding=first, group=group, bm=bm, bk=bk)
        lower = [LowerToCpu(isa=isa_text(chosen)), PlaceBarriers(), PlanMemory()]
        return [*self._relaxation(), *choose, tile, *self._spikes(), *lower]

    def _spikes(self) -> list[ModulePass]:
        """What tells how spiking networks run."""
        if not self.spikes:
            return []
        from neuc.backends.cpu.note_spike_code import NoteSpikeCode

        return [NoteSpikeCode()]

    def _relaxation(self) -> list[ModulePass]:
        """What makes models of energies ready for kernels."""
        if not self.relaxes:
            return []
        from neuc.passes.color_blocks import ColorBlocks

        return [ColorBlocks()]


TARGETS: dict[str, CpuTarget] = {
    target.name: target
    for target in (
        CpuTarget("cpu", "the fastest kernels this CPU has; float unless asked to quantise", "auto", "none"),
        CpuTarget("cpu-tl2", "ternary look-up tables of three weights (TL2), lossless", "tl2", "auto"),
        CpuTarget("cpu-tl1", "ternary look-up tables of two weights (TL1), lossless", "tl1", "auto"),
        CpuTarget("cpu-i2", "ternary products of two-bit weights, lossless", "i2", "auto"),
        CpuTarget("cpu-t5", "ternary products of five weights a byte (1.6 bits), lossless", "t5", "auto"),
        CpuTarget("cpu-spike", "event-driven code for spiking networks, and the rest", "auto", "none", spikes=True),
        CpuTarget("cpu-ref", "scalar reference kernels, the oracle of the others", "i8", "none", scalar=True),
        CpuTarget("cpu-relax", "samplers and relaxations of energy models", "auto", "none", relaxes=True),
    )
}


def is_cpu_target(op: Operation) -> bool:
    """Whether `op` is a segment meant for one of the CPU targets."""
    attribute = op.attributes.get(TARGET_ATTRIBUTE)
    return isinstance(attribute, StringAttr) and attribute.data in TARGETS


def host_isa() -> Isa:
    """The widest instruction set of this CPU, as narrowed by ``NEUC_CPU_FEATURES``."""
    return Isa.select(host_features())


def isa_text(isa: Isa) -> str:
    """`isa` as the text that `isa_from_text` reads."""
    arch = [] if isa.arch == "x86_64" or isa.name == "neon" else [isa.arch]
    order = ["lines"] if isa.fetch_order == "lines" else []
    return "+".join([isa.name, *isa.optional, *order, *arch])


def isa_from_text(text: str) -> Isa:
    """The instruction set a text such as ``avx512+avx512vnni`` names; ``host`` is this CPU's.

    Raises:
        Error: NEUC-E002, no such instruction set.
    """
    name, *rest = text.split("+")
    arch = next((r for r in rest if r == "aarch64"), None)
    order: FetchOrder = "lines" if name in {"avx512", "avx2"} and "lines" in rest else "pages"
    optional = tuple(r for r in rest if r != "aarch64" and r != order)
    match name:
        case "host":
            return host_isa()
        case "avx512" if set(optional) <= {"avx512vnni", "avx512vbmi", "gfni", "amx-int8", "amx-bf16"}:
            return replace(Isa.avx512(optional), fetch_order=order)
        case "avx2" if set(optional) <= {"avxvnni"}:
            return replace(Isa.avx2(optional), fetch_order=order)
        case "sse4" if not rest:
            return Isa.sse4()
        case "neon" if not optional:
            return Isa.neon()
        case "portable" if not optional:
            return Isa.portable(arch or "x86_64")
        case "scalar" if not optional:
            return Isa.scalar(arch or "x86_64")
        case _:
            raise Error(
                "NEUC-E002",
                f"no instruction set {text!r}",
                hint="use host, avx512[+avx512vnni][+avx512vbmi][+gfni][+amx-int8][+amx-bf16][+lines], "
                "avx2[+avxvnni][+lines], sse4, neon, portable, scalar",
                exit_code=Exit.USAGE,
            )
