"""How far results are from a reference: the figures reports and ``--verify`` print, and what ``--max-error`` bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from neuc.compiler.report_text import floored

_UNIT_TOLERANCE = 1e-3
"""Rows whose length differs from 1 by no more than this count as normalised embeddings."""

_TINY = 1e-30


RELATIVE, COSINE = "relative L2 error", "mean cosine error"
INTEGERS, NOTHING = "share of integers that differ", "no finite number to compare"
"""What `Agreement.measure` may say."""


@dataclass(frozen=True)
class Agreement:
    """How results compare with a reference, over all inputs given.

    Figures are of outputs of floats, each by itself: of several the worst figure counts. Outputs of integers and
    booleans are places and decisions, of which one that is wrong is no better for being near: their share that is equal
    is told. Where no output is of floats, 8-bit integers, which are rounded numbers, are compared as floats are.

    Attributes:
        max_abs: largest absolute difference.
        mean_abs: mean absolute difference.
        relative_l2: length of the difference over the length of the reference.
        cosine_error: mean of 1 - cos over the rows (last axis).
        sqnr_db: signal to noise in decibels; infinite for equal results.
        argmax: share of rows whose largest element is in the same place; None if no row has more than one element.
        error: what ``--max-error`` bounds: mean cosine error of normalised embeddings, else relative L2, of the output
            that is worst in it; the share of integers that differ if there are only such; NaN if no finite number was
            compared.
        measure: which of these it is.
        integers: share of the integers and booleans that are equal; None if no output is of such.
        not_finite: how many reference values are infinite or not a number; the figures say little about those.
        silent: whether all of the reference is 0, of which nothing is a share.
    """

    max_abs: float
    mean_abs: float
    relative_l2: float
    cosine_error: float
    sqnr_db: float
    argmax: float | None
    error: float
    measure: str
    integers: float | None = None
    not_finite: int = 0
    silent: bool = False

    @property
    def embedding(self) -> bool:
        """Whether the output that counts is normalised rows, which are judged by cosine error."""
        return self.measure == COSINE

    @property
    def nothing(self) -> bool:
        """Whether no finite number was compared, so that there is no error to speak of."""
        return self.measure == NOTHING

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
        equal = self.max_abs == 0 and self.integers in (None, 1)
        rest = {"argmax_agreement": self.argmax, "measure": self.measure, "reference_not_finite": self.not_finite}
        return {**finite, "equal": equal, "integers_equal": self.integers, **rest}

    def describe(self) -> str:
        """One line for people."""
        parts = self._figures()
        parts += [] if self.integers is None else [f"integers equal {floored(self.integers)}"]
        parts += [f"but {self.not_finite} reference values are not finite"] if self.not_finite else []
        return ", ".join(parts)

    def _figures(self) -> list[str]:
        if self.nothing:
            return [self.measure]
        if self.measure == INTEGERS:
            return []
        if self.silent and self.max_abs:
            return [f"max abs {self.max_abs:.2e}, mean abs {self.mean_abs:.2e}, and all of the reference is 0"]
        parts = [f"{self.measure} {self.error:.2e}", f"max abs {self.max_abs:.2e}", f"mean abs {self.mean_abs:.2e}"]
        parts += [f"relative L2 {self.relative_l2:.2e}"] if self.embedding else []
        parts += [] if self.embedding else [f"cosine error {self.cosine_error:.2e}"]
        parts.append(f"SQNR {self.sqnr_db:.1f} dB" if np.isfinite(self.sqnr_db) else "SQNR inf")
        return parts + ([] if self.argmax is None else [f"argmax equal {self.argmax:.0%}"])


@dataclass(frozen=True)
class _Output:
    """The figures of one output, of which some element is there; see `Agreement`."""

    differences: np.ndarray
    relative_l2: float
    cosine_error: float
    sqnr_db: float
    ranked: np.ndarray
    embedding: bool
    finite: int
    silent: bool

    @property
    def error(self) -> float:
        return self.cosine_error if self.embedding else self.relative_l2

    @staticmethod
    def of(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> _Output:
        wide = [(e.astype(np.float64), g.astype(np.float64)) for e, g in pairs]
        # Where both are the same infinity, or both not a number, they agree.
        with np.errstate(invalid="ignore"):
            differences = [np.where(_same(e, g), 0.0, g - e) for e, g in wide]
        flat = np.concatenate([np.abs(d).reshape(-1) for d in differences])
        signal = max(float(sum(np.sum(np.square(e[np.isfinite(e)])) for e, _ in wide)), _TINY)
        noise = float(np.sum(np.square(flat)))
        rows = [(_rows(e), _rows(g)) for e, g in wide]
        with np.errstate(invalid="ignore"):
            cosine = np.concatenate([_cosine_errors(e, g) for e, g in rows])
        return _Output(
            flat,
            float(np.sqrt(noise / signal)) if noise else 0.0,
            float(cosine.mean()),
            float(10 * np.log10(signal / noise)) if noise else float("inf"),
            np.concatenate([e.argmax(1) == g.argmax(1) if e.shape[1] > 1 else np.empty(0, bool) for e, g in rows]),
            all(_is_embedding(e) for e, _ in rows),
            sum(int(np.isfinite(e).sum()) for e, _ in wide),
            not any(e.any() for e, _ in wide),
        )


def compare(reference: Sequence[Sequence[np.ndarray]], results: Sequence[Sequence[np.ndarray]]) -> Agreement:
    """Compare results with a reference: one sequence of outputs for each input.

    Raises:
        ValueError: the two differ in number or shapes of outputs.
    """
    runs = [list(zip(a, b, strict=True)) for a, b in zip(reference, results, strict=True)]
    for expected, got in (pair for run in runs for pair in run):
        if expected.shape != got.shape:
            raise ValueError(f"output has shape {list(got.shape)}, the reference {list(expected.shape)}")
    outputs = [[(e, g) for e, g in column if e.size] for column in zip(*runs, strict=True)]
    outputs = [pairs for pairs in outputs if pairs]
    values = [pairs for pairs in outputs if pairs[0][0].dtype.kind not in "iub"]
    values = values or [pairs for pairs in outputs if pairs[0][0].dtype in (np.int8, np.uint8)]
    integers = [(e == g).reshape(-1) for pairs in outputs if pairs[0][0].dtype.kind in "iub" for e, g in pairs]
    equal = float(np.concatenate(integers).mean()) if integers else None
    found = [_Output.of(pairs) for pairs in values]
    if not sum(output.finite for output in found):
        error, measure = (float("nan"), NOTHING) if equal is None or found else (1 - equal, INTEGERS)
    else:
        worst = max(found, key=lambda output: float("inf") if np.isnan(output.error) else output.error)
        error, measure = worst.error, COSINE if worst.embedding else RELATIVE
    differences = np.concatenate([output.differences for output in found]) if found else np.zeros(1)
    ranked = np.concatenate([output.ranked for output in found]) if found else np.empty(0, bool)
    return Agreement(
        max_abs=float(differences.max()),
        mean_abs=float(differences.mean()),
        relative_l2=float(np.max([output.relative_l2 for output in found], initial=0)),
        cosine_error=float(np.max([output.cosine_error for output in found])) if found else 0.0,
        sqnr_db=float(np.min([output.sqnr_db for output in found], initial=float("inf"))),
        argmax=float(ranked.mean()) if ranked.size else None,
        error=error,
        measure=measure,
        integers=equal,
        not_finite=sum(int(np.sum(~np.isfinite(e))) for pairs in values for e, _ in pairs),
        silent=bool(found) and all(output.silent for output in found),
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
