"""What a conversion will do, tried before anything is written. Writing stands in `convert.py` and `hf_writer.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from neuc.compiler.formats.block_format import CANNOT_HOLD, BlockFormat, rounding
from neuc.compiler.formats.sources import Source, SourceTensor, TlSizes
from neuc.errors import Error, NodeRef


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Attributes:
        format: the block format.
        tensors: names of the tensors that were re-encoded.
        source_types: the types they had.
        dropped: tensors that stand in the new payloads now (scales of TL1 and TL2).
        before: bytes of these tensors before; scales beside them are not counted.
        after: and afterwards.
        copied: how many tensors were copied as they are.
        scale_error: the largest relative error of a scale; 0 unless lossy scales were asked for and needed.
        notes: what else the user should know.
    """

    format: str
    tensors: tuple[str, ...]
    source_types: tuple[str, ...]
    dropped: tuple[str, ...]
    before: int
    after: int
    copied: int
    scale_error: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Options:
    """How to convert: the format's name, block sizes where it is TL1 or TL2, and whether scales may be rounded."""

    format: str
    tl_sizes: TlSizes
    lossy_scales: bool = False


@dataclass(frozen=True)
class Plan:
    """Tensors to re-encode, each with its format, and the largest error of a scale."""

    encoded: tuple[tuple[SourceTensor, BlockFormat], ...]
    scale_error: float
    notes: tuple[str, ...]

    def conversion(
        self, name: str, after: int, dropped: tuple[str, ...], copied: int, notes: Sequence[str]
    ) -> Conversion:
        """The report."""
        return Conversion(
            name,
            tuple(tensor.name for tensor, _ in self.encoded),
            tuple(sorted({tensor.type for tensor, _ in self.encoded})),
            dropped,
            sum(tensor.nbytes for tensor, _ in self.encoded),
            after,
            copied,
            self.scale_error,
            (*self.notes, *notes),
        )


def plan_tensors(source: Source, form_of: Callable[[SourceTensor], BlockFormat | str], lossy_scales: bool) -> Plan:
    """Try every ternary tensor, so that all that is wrong is told at once and before anything is written.

    Args:
        source: where they are.
        form_of: the format for a tensor, or why there is none.
        lossy_scales: whether scales may be rounded.

    Raises:
        Error: NEUC-E123, with every tensor that cannot be converted; NEUC-E122.
    """
    encoded: list[tuple[SourceTensor, BlockFormat]] = []
    refused: list[NodeRef] = []
    worst = 0.0
    divided = 0
    for tensor in source.tensors:
        if tensor.decode is None:
            continue
        form = form_of(tensor)
        value = tensor.decode()
        reason = form if isinstance(form, str) else form.objection(value, lossy_scales=lossy_scales)
        if reason or isinstance(form, str):
            refused.append(NodeRef(tensor.name, reason=reason, noun="tensor"))
            continue
        scales = value.scales_by(form.granularity)
        worst = max(worst, 0.0 if scales is None else rounding(scales, form.scale_dtype))
        divided += value.divisors is not None
        encoded.append((tensor, form))
    name = source.origin.path.name
    if refused:
        count = f"{len(refused)} of {len(refused) + len(encoded)} ternary tensors"
        raise Error(
            CANNOT_HOLD, f"{count} in {name} cannot be converted exactly", hint="choose another --format", nodes=refused
        )
    if not encoded:
        raise Error(CANNOT_HOLD, f"{name} has no ternary tensors", hint="`neuc inspect` shows what it has")
    notes = [f"{divided} scales divide in the source: the multipliers are their float32 reciprocals"] if divided else []
    return Plan(tuple(encoded), worst, tuple(notes))
