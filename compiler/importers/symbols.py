"""Dimension symbols of a model: from the names files use to names IR expressions can hold, one to one."""

from __future__ import annotations

import keyword
import re

from onnx import TypeProto

from neuc.dialects.dims import Dim

ANONYMOUS = frozenset(("", "?", "-1", "None", "none", "unk", "unknown"))
"""Dim parameters that name nothing: each such dim is a symbol of its own."""

_RESERVED = frozenset(("max", "min"))


class Symbols:
    """Hands out symbols; two file names never share one."""

    def __init__(self) -> None:
        self._by_name: dict[str, str] = {}
        self._taken: set[str] = set()

    def named(self, name: str) -> Dim:
        """The symbol for a dim parameter."""
        if name not in self._by_name:
            self._by_name[name] = self._unique(name)
        return Dim.symbol(self._by_name[name])

    def known(self, name: str) -> Dim | None:
        """The symbol for a dim parameter if there is one already."""
        return Dim.symbol(self._by_name[name]) if name in self._by_name else None

    def fresh(self, hint: str) -> Dim:
        """A new symbol, named after `hint`."""
        return Dim.symbol(self._unique(hint))

    def _unique(self, name: str) -> str:
        base = re.sub(r"[^A-Za-z0-9_]", "_", name)
        if not base or base[0].isdigit() or set(base) == {"_"}:
            base = f"d_{base}"
        if keyword.iskeyword(base) or base in _RESERVED:
            base += "_"
        unique, count = base, 1
        while unique in self._taken:
            count += 1
            unique = f"{base}_{count}"
        self._taken.add(unique)
        return unique

    def input_dim(self, tensor: TypeProto.Tensor | TypeProto.SparseTensor, index: int, value: str) -> Dim:
        """A declared dimension of the input `value`."""
        dim = tensor.shape.dim[index]
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            return Dim.of(dim.dim_value)
        if not dim.HasField("dim_param") or dim.dim_param in ANONYMOUS:
            return self.fresh(f"{value}_d{index}")
        return self.named(dim.dim_param)

    def inner_dim(self, tensor: TypeProto.Tensor | TypeProto.SparseTensor, index: int) -> Dim | None:
        """An inferred dimension inside the graph: only what inputs declared counts, the rest is found out later."""
        dim = tensor.shape.dim[index]
        if dim.HasField("dim_value"):
            return Dim.of(dim.dim_value) if dim.dim_value >= 0 else None
        return self.known(dim.dim_param) if dim.dim_param else None
