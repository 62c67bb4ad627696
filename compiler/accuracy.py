"""How far results are from a reference: the figures reports and ``--verify`` print, and what ``--max-error`` bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_UNIT_TOLERANCE = 1e-3
"""Rows whose length differs from 1 by no more than this count as normalised embeddings."""

_TINY = 1e-30


@dataclass(frozen=True)
class Agreement:
    """How results compare with a reference, over all outputs and inputs given.

    Attributes:
        max_abs: largest absolute difference.
        mean_abs: mean absolute difference.
        relative_l2: length of the difference over the length of the reference.
        cosine_error: mean of 1 - cos over the rows (last axis) of every output.
        sqnr_db: signal to noise in decibels; infinite for equal results.
        argmax: share of rows whose largest element is in the same place; None if no row has more than one element.
        embedding: whether the reference is normalised rows, so that the cosine error is what counts.
        not_finite: how many reference values are infinite or not a number; the figures say little about those.
        silent: whether all of the reference is 0, of which nothing is a share.
    """

    max_abs: float
    mean_abs: float
    relative_l2: float
    cosine_error: float
    sqnr_db: float
    argmax: float | None
    embedding: bool
    not_finite: int = 0
    silent: bool = False

    @property
    def error(self) -> float:
        """What ``--max-error`` bounds: mean cosine error for embeddings, else relative L2."""
        return self.cosine_error if self.embedding else self.relative_l2

    @property
    def measure(self) -> str:
        """The name of `error`."""
        return "mean cosine error" if self.embedding else "relative L2 error"

    def to_json(self) -> dict[str, object]:
        """The figures as plain data; what is infinite or not a number is null."""
        figures = {
            "max_abs": self.max_abs,
            "mean_abs": self.mean_abs,
            "relative_l2": self.relative_l2,
            "cosine_error": self.cosine_error,
            "sqnr_db": self.sqnr_db,
            "error": self.error,
        }
        shares = ("relative_l2", "sqnr_db", "error") if self.silent and self.max_abs else ()
        finite: dict[str, object] = {
            name: value if np.isfinite(value) and name not in shares else None for name, value in figures.items()
        }
        equal = self.max_abs == 0
        rest = {"argmax_agreement": self.argmax, "measure": self.measure, "reference_not_finite": self.not_finite}
        return {**finite, "equal": equal, **rest}

    def describe(self) -> str:
        """One line for people."""
        if self.silent and self.max_abs:
            return f"max abs {self.max_abs:.2e}, mean abs {self.mean_abs:.2e}, and all of the reference is 0"
        parts = [f"{self.measure} {self.error:.2e}", f"max abs {self.max_abs:.2e}", f"mean abs {self.mean_abs:.2e}"]
        parts += [f"relative L2 {self.relative_l2:.2e}"] if self.embedding else []
        parts += [] if self.embedding else [f"cosine error {self.cosine_error:.2e}"]
        parts.append(f"SQNR {self.sqnr_db:.1f} dB" if np.isfinite(self.sqnr_db) else "SQNR inf")
        parts += [] if self.argmax is None else [f"argmax equal {self.argmax:.0%}"]
        parts += [f"but {self.not_finite} reference values are not finite"] if self.not_finite else []
        return ", ".join(parts)


def compare(reference: Sequence[Sequence[np.ndarray]], results: Sequence[Sequence[np.ndarray]]) -> Agreement:
    """Compare results with a reference: one sequence of outputs for each input.

    Raises:
        ValueError: the two differ in number or shapes of outputs.
    """
    pairs = [pair for a, b in zip(reference, results, strict=True) for pair in zip(a, b, strict=True)]
    for expected, got in pairs:
        if expected.shape != got.shape:
            raise ValueError(f"output has shape {list(got.shape)}, the reference {list(expected.shape)}")
    wide = [(e.astype(np.float64), g.astype(np.float64)) for e, g in pairs if e.size]
    if not wide:
        return Agreement(0.0, 0.0, 0.0, 0.0, float("inf"), None, embedding=False)
    # Where both are the same infinity, or both not a number, they agree.
    with np.errstate(invalid="ignore"):
        differences = [np.where(_same(e, g), 0.0, g - e) for e, g in wide]
    flat = np.concatenate([np.abs(d).reshape(-1) for d in differences])
    signal = float(sum(np.sum(np.square(e[np.isfinite(e)])) for e, _ in wide))
    noise = float(np.sum(np.square(flat)))
    rows = [(_rows(e), _rows(g)) for e, g in wide]
    with np.errstate(invalid="ignore"):
        cosine = np.concatenate([_cosine_errors(e, g) for e, g in rows])
    ranked = [e.argmax(1) == g.argmax(1) for e, g in rows if e.shape[1] > 1]
    return Agreement(
        max_abs=float(flat.max()),
        mean_abs=float(flat.mean()),
        relative_l2=float(np.sqrt(noise / max(signal, _TINY))) if noise else 0.0,
        cosine_error=float(cosine.mean()),
        sqnr_db=float(10 * np.log10(max(signal, _TINY) / noise)) if noise else float("inf"),
        argmax=float(np.concatenate(ranked).mean()) if ranked else None,
        embedding=all(_is_embedding(e) for e, _ in rows),
        not_finite=sum(int(np.sum(~np.isfinite(e))) for e, _ in wide),
        silent=not any(e.any() for e, _ in wide),
    )


def compare_named(
    names: Sequence[str], reference: Mapping[str, np.ndarray], results: Mapping[str, np.ndarray]
) -> Agreement:
    """`compare` for the named outputs of one run."""
    return compare([[reference[n] for n in names]], [[results[n] for n in names]])


def _same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a == b) | (np.isnan(a) & np.isnan(b))


def _rows(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)


def _cosine_errors(expected: np.ndarray, got: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(got, axis=1)
    cosine = np.einsum("ij,ij->i", expected, got) / np.maximum(lengths, _TINY)
    same = np.all(_same(expected, got), axis=1)
    return np.where(same, 0.0, 1 - cosine)


def _is_embedding(rows: np.ndarray) -> bool:
    return rows.shape[1] > 1 and bool(np.all(np.abs(np.linalg.norm(rows, axis=1) - 1) < _UNIT_TOLERANCE))
