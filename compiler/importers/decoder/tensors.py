"""The tensors of a decoder, looked up by what they are for and checked all at once before anything is read of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from os import cpu_count

import numpy as np

from neuc.compiler.formats.block_format import Bytes
from neuc.compiler.formats.float_rows import float_rows, row_bytes
from neuc.compiler.formats.gguf_values import shown
from neuc.compiler.formats.hf_folder import HfFolder
from neuc.compiler.formats.sources import Source, SourceTensor
from neuc.compiler.importers.decoder.config import UNSUPPORTED, DecoderConfig
from neuc.compiler.importers.decoder.matrices import Matrix, embedding_matrix, ternary_matrix
from neuc.compiler.importers.decoder.names import GGUF, HF, LINEARS, Names
from neuc.errors import Error, Exit, NodeRef

_FLOATS = ("f32", "f16", "bf16")


@dataclass
class DecoderTensors:
    """A decoder's tensors.

    Attributes:
        source: where they are.
        config: what they have to fit.
        names: what they are called.
        problems: those missing, of a wrong shape or type, or of no use that is known.
    """

    source: Source
    config: DecoderConfig
    names: Names
    problems: list[NodeRef] = field(default_factory=list[NodeRef])
    _by_name: Mapping[str, SourceTensor] = field(default_factory=dict[str, SourceTensor])
    _used: set[str] = field(default_factory=set[str])

    @staticmethod
    def check(source: Source, config: DecoderConfig) -> DecoderTensors:
        """The tensors of a source.

        Raises:
            Error: NEUC-E126, naming all that are at fault.
        """
        names = HF if isinstance(source.origin, HfFolder) else GGUF
        by_name = {tensor.name: tensor for tensor in source.tensors}
        found = DecoderTensors(source, config, names, _by_name=by_name)
        found._check()
        if found.problems:
            count = len(found.problems)
            first = found.problems[0]
            raise Error(
                UNSUPPORTED,
                f"{source.origin.path.name}: {count} tensor{'s' if count > 1 else ''} of this {config.arch} model "
                f"cannot be used: {first.name}: {first.reason}",
                hint="`neuc inspect` shows all tensors; `neuc explain NEUC-E126` what is supported",
                nodes=found.problems,
                exit_code=Exit.UNSUPPORTED,
            )
        return found

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        return name in self._by_name

    def vector(self, name: str) -> np.ndarray | None:
        """A vector as float32; None if there is none of this name."""
        tensor = self._by_name.get(name)
        return None if tensor is None else _floats(tensor)

    def name(self, role: str, layer: int) -> str:
        """The name of a layer's tensor."""
        return self.names.layer[role].format(layer)

    @property
    def head(self) -> str:
        """The head's name: the embedding's if they are one."""
        return self.names.head if self.has(self.names.head) else self.names.embedding

    def matrices(self, head: str | None) -> dict[str, Matrix]:
        """All matrices by name, hashed on all CPUs; `head` as for `embedding_matrix`."""
        linears = [self.name(role, layer) for layer in range(self.config.layers) for role in LINEARS]
        wide = list(dict.fromkeys((self.head, self.names.embedding)))

        def make(name: str) -> Matrix:
            tensor = self._by_name[name]
            if name in wide:
                return embedding_matrix(self.source, tensor, head)
            factor = self.vector(self._factor_name(name))
            return ternary_matrix(self.source, tensor, 1.0 if factor is None else float(factor[0]))

        with ThreadPoolExecutor(cpu_count()) as pool:
            # Not both rounded ones at once with others waiting: they have threads of their own.
            made = dict(zip(linears, pool.map(make, linears), strict=True))
        return made | {name: make(name) for name in wide}

    def _factor_name(self, name: str) -> str:
        return name.removesuffix(".weight") + self.names.scale if self.names.scale else ""

    def _check(self) -> None:
        c = self.config
        q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
        shapes = {
            "q": (q, c.hidden),
            "k": (kv, c.hidden),
            "v": (kv, c.hidden),
            "o": (c.hidden, q),
            "gate": (c.ffn, c.hidden),
            "up": (c.ffn, c.hidden),
            "down": (c.hidden, c.ffn),
        }
        gammas = {"attn_norm": c.hidden, "ffn_norm": c.hidden}
        optional = {"attn_sub_norm": q, "ffn_sub_norm": c.ffn, "q_norm": c.head_dim, "k_norm": c.head_dim}
        # A norm that one layer has, all have.
        somewhere = {role for role in optional for layer in range(c.layers) if self.has(self.name(role, layer))}
        for layer in range(c.layers):
            for role in self.names.layer:
                name = self.name(role, layer)
                if role in shapes:
                    self._linear(name, shapes[role])
                elif role in gammas or role in somewhere:
                    self._vector(name, gammas.get(role) or optional[role])
        self._vector(self.names.norm, c.hidden)
        for name in {self.names.embedding, self.head}:
            self._embedding(name, (c.vocab, c.hidden))
        if self.has(self.names.rope_factors):
            self._vector(self.names.rope_factors, c.head_dim // 2)
        for name in self._by_name.keys() - self._used:
            self.problems.append(NodeRef(shown(name), self._by_name[name].type, "nothing here has a use for it"))
        self.problems.sort(key=lambda problem: problem.name)

    def _take(self, name: str, shape: tuple[int, ...]) -> SourceTensor | None:
        """A tensor that must be there with this shape."""
        tensor = self._by_name.get(name)
        self._used.add(name)
        if tensor is None:
            self.problems.append(NodeRef(shown(name), "", "it is missing"))
            return None
        if tensor.shape != shape:
            reason = f"its shape is {list(tensor.shape)}, and the model's sizes ask for {list(shape)}"
            self.problems.append(NodeRef(shown(name), tensor.type, reason))
            return None
        return tensor

    def _refuse(self, tensor: SourceTensor, reason: str) -> None:
        self.problems.append(NodeRef(shown(tensor.name), tensor.type, reason))

    def _linear(self, name: str, shape: tuple[int, int]) -> None:
        tensor = self._take(name, shape)
        if tensor is not None and tensor.decode is None:
            self._refuse(tensor, f"its type is {tensor.type}, which is no ternary format")
        elif tensor is not None and tensor.missing:
            self._refuse(tensor, f"it cannot be decoded without {tensor.missing}")
        for beside in (f"{name}_scale", self._factor_name(name)):
            if beside and self.has(beside):
                self._scalar(beside)

    def _scalar(self, name: str) -> None:
        tensor = self._by_name[name]
        self._used.add(name)
        if tensor.elements != 1 or tensor.type not in _FLOATS:
            self._refuse(tensor, f"a scale beside a tensor is one float, not {tensor.type}{list(tensor.shape)}")

    def _vector(self, name: str, size: int) -> None:
        tensor = self._take(name, (size,))
        if tensor is not None and tensor.type not in _FLOATS:
            self._refuse(tensor, f"its type is {tensor.type}, and it should hold floats")
        elif tensor is not None and not np.isfinite(_floats(tensor)).all():
            self._refuse(tensor, "it holds infinity or what is not a number")

    def _embedding(self, name: str, shape: tuple[int, int]) -> None:
        tensor = self._take(name, shape)
        if tensor is None or (tensor.decode is not None and not tensor.missing):
            return
        if row_bytes(tensor.type, shape[1]) is None:
            self._refuse(tensor, f"its type is {tensor.type}: floats, q8_0, q4_0, q6_k and ternary formats are read")


def _floats(tensor: SourceTensor) -> np.ndarray:
    data: Bytes = np.frombuffer(tensor.payload(), np.uint8)
    return float_rows(tensor.type, data, tensor.elements).reshape(-1)


def rounded_notes(matrices: Iterable[Matrix]) -> list[str]:
    """What was rounded, one line each."""
    return [matrix.rounded for matrix in matrices if matrix.rounded]
