"""`dense.rotary`, `dense.cache_append` and `dense.attention`."""

from __future__ import annotations

from xdsl.dialects.builtin import f16, i8
from xdsl.ir import SSAValue

from neuc.backends.cpu.kernels.attention import AttentionKernel
from neuc.backends.cpu.kernels.attention_merge import AttentionMergeKernel
from neuc.backends.cpu.kernels.attention_products import AttentionShape
from neuc.backends.cpu.kernels.cache_append import CacheAppendKernel
from neuc.backends.cpu.kernels.copy_bytes import BYTES_PER_UNIT, CopyBytesKernel
from neuc.backends.cpu.kernels.rotary import RotaryKernel
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.reduction import grain_of
from neuc.dialects.dense import AttentionOp, CacheAppendOp, RotaryOp
from neuc.dialects.dims import Dim
from neuc.dialects.store import dims_of, element_of

_PIECES = 20
"""So many work units at least, as long as one token's keys can be cut into them: they then even out over threads."""
_MOST_CHUNKS = 16


@lowers(RotaryOp)
def lower_rotary(op: RotaryOp, s: SegmentLowering) -> None:
    """One launch."""
    tokens, heads, width = dims_of(op.x)
    s.launch(
        RotaryKernel(op.interleaved is not None),
        [s.buffer(op.x), s.buffer(op.cos), s.buffer(op.sin), s.buffer(op.result), heads, width // 2],
        work=tokens * heads,
        grain=grain_of(width),
    )


def _known_width(op: CacheAppendOp) -> str | None:
    return _unless_static("heads of", dims_of(op.k)[2])


def _unless_static(what: str, dim: Dim) -> str | None:
    return None if dim.is_static else f"{what} {dim} elements, unknown before it runs, have no CPU kernel"


def _held(cache: SSAValue) -> str:
    element = element_of(cache)
    return "f16" if element == f16 else "i8" if element == i8 else "f32"


@lowers(CacheAppendOp, supports=_known_width)
def lower_cache_append(op: CacheAppendOp, s: SegmentLowering) -> None:
    """Copies that return at once when input and output are one array, then the new tokens."""
    for source, target in ((op.k_cache, op.new_k), (op.v_cache, op.new_v)):
        size = s.nbytes(source)
        s.launch(
            CopyBytesKernel(), [s.buffer(source), s.buffer(target), size], work=size.ceildiv(BYTES_PER_UNIT), op=op
        )
    tokens, groups, width = dims_of(op.k)
    s.launch(
        CacheAppendKernel(width.value, _held(op.k_cache)),
        [*map(s.buffer, (op.k, op.v, op.position, op.new_k, op.new_v)), groups, dims_of(op.k_cache)[1]],
        work=tokens * groups,
        scratch=width,
    )


def _known_heads(op: AttentionOp) -> str | None:
    _, heads, width = dims_of(op.q)
    return (
        _unless_static("heads of", width)
        or _unless_static("vectors of heads of", heads)
        or _unless_static("caches of heads of", dims_of(op.k_cache)[0])
    )


def chunks_of(groups: int, tokens: Dim) -> Dim:
    """How many pieces the keys are cut into: several if there are few heads and few tokens."""
    most = 1
    while groups * most < _PIECES and most < _MOST_CHUNKS:
        most *= 2
    return (Dim.of(most) // tokens.maximum(1)).maximum(1) if most > 1 else Dim.of(1)


@lowers(AttentionOp, supports=_known_heads)
def lower_attention(op: AttentionOp, s: SegmentLowering) -> None:
    """One launch, and a second one that joins pieces if there are any."""
    tokens, heads, width = dims_of(op.q)
    groups, blocks = dims_of(op.k_cache)[:2]
    chunks = chunks_of(groups.value, tokens)
    kernel = AttentionKernel.of(s.isa, AttentionShape(heads.value, groups.value, width.value, _held(op.k_cache)))
    rows = tokens * heads
    joined = (chunks - 1).minimum(1)
    parts = s.temp(joined * chunks * rows * (width + 2) * 4)
    out = s.buffer(op.result)
    s.launch(
        kernel,
        [
            *map(s.buffer, (op.q, op.k_cache, op.v_cache, op.position)),
            out,
            parts,
            tokens,
            blocks,
            chunks,
            float(op.scale.value.data),
        ],
        work=groups * tokens.ceildiv(kernel.tokens) * chunks,
        scratch=kernel.layout(s.isa).nbytes,
    )
    if chunks != 1:
        s.launch(
            AttentionMergeKernel(width.value),
            [parts, out, rows, chunks],
            work=joined * rows,
            scratch=4 * _MOST_CHUNKS,
        )
