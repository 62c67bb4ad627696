"""Unitary matrices as meshes of Mach-Zehnder interferometers: decompositions, and what a mesh with given phases does.

An interferometer mixes two neighbouring modes by T(θ, φ) = [[e^{iφ} cos θ, -sin θ], [e^{iφ} sin θ, cos θ]]; a mesh is a
sequence of them and a phase on each output. Sources: Clements et al., Optica 3, 1460 (2016); Reck et al., PRL 73, 58
(1994).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error, Exit
from neuc.runtime.analog.devices import Floats

Complex: TypeAlias = NDArray[np.complex128]
Ints: TypeAlias = NDArray[np.int64]
LAYOUTS = ("clements", "reck")
_UNITARY = 1e-8


@dataclass(frozen=True)
class Mesh:
    """A programmed mesh.

    Attributes:
        size: modes.
        modes: the upper mode of each interferometer, in an order light may pass them.
        theta: mixing angles.
        phi: phases in front of the upper inputs.
        output: phases behind the mesh, one for each mode.
    """

    size: int
    modes: Ints
    theta: Floats
    phi: Floats
    output: Floats

    def columns(self) -> list[Ints]:
        """Numbers of the interferometers that light passes at the same time, first to last; modes ascend in each."""
        free = np.zeros(self.size, np.int64)
        depth = np.empty(len(self.modes), np.int64)
        for index, mode in enumerate(self.modes):
            depth[index] = max(free[mode], free[mode + 1])
            free[mode] = free[mode + 1] = depth[index] + 1
        order = np.lexsort((self.modes, depth))
        cuts = np.searchsorted(depth[order], np.arange(1, int(depth.max(initial=0)) + 1))
        return [part for part in np.split(order, cuts) if len(part)]


@dataclass(frozen=True)
class Imperfections:
    """What real interferometers add, drawn for one mesh.

    Attributes:
        theta: errors of mixing angles, radians.
        phi: errors of input phases.
        first: how far the first splitter of each is from 50:50, radians.
        second: the second splitter.
        amplitude: what passing one interferometer leaves of an amplitude.
    """

    theta: Floats
    phi: Floats
    first: Floats
    second: Floats
    amplitude: float = 1.0

    @staticmethod
    def none(count: int) -> Imperfections:
        """Ideal interferometers."""
        zero = np.zeros(count)
        return Imperfections(zero, zero, zero, zero)


def transfer(mesh: Mesh, errors: Imperfections | None = None) -> Complex:
    """The matrix from input to output amplitudes, [size, size]."""
    found = errors or Imperfections.none(len(mesh.modes))
    matrix = np.eye(mesh.size, dtype=np.complex128)
    blocks = _blocks(mesh, found)
    for column in mesh.columns():
        upper = mesh.modes[column]
        above, below = matrix[upper], matrix[upper + 1]
        (a, b), (c, d) = (blocks[row][:, column, None] for row in (0, 1))
        matrix[upper], matrix[upper + 1] = a * above + b * below, c * above + d * below
    return np.exp(1j * mesh.output)[:, None] * matrix


def _blocks(mesh: Mesh, errors: Imperfections) -> NDArray[np.complex128]:
    """[2, 2, count]: splitter, twice the mixing phase, splitter, input phase, without the common phase of the pair."""
    internal = np.pi / 2 - mesh.theta
    common = -1 / (1j * np.exp(1j * internal))
    shift = np.exp(2j * (internal + errors.theta))
    enter = np.exp(1j * (mesh.phi + np.pi + errors.phi))
    (c1, s1), (c2, s2) = ((np.cos(np.pi / 4 + d), 1j * np.sin(np.pi / 4 + d)) for d in (errors.first, errors.second))
    scale = errors.amplitude * common
    return np.array(
        [
            [scale * (c2 * shift * c1 + s2 * s1) * enter, scale * (c2 * shift * s1 + s2 * c1)],
            [scale * (s2 * shift * c1 + c2 * s1) * enter, scale * (s2 * shift * s1 + c2 * c1)],
        ]
    )


def decompose(unitary: Complex | Floats, layout: str = "clements") -> Mesh:
    """The mesh that does what `unitary` does, in O(N³).

    Args:
        unitary: [N, N].
        layout: ``clements`` (depth N) or ``reck`` (depth 2N - 3).

    Raises:
        Error: NEUC-E660, the matrix is not unitary, or the layout is unknown.
    """
    if layout not in LAYOUTS:
        raise Error("NEUC-E660", f"unknown mesh {layout!r}", hint=f"choose {', '.join(LAYOUTS)}", exit_code=Exit.USAGE)
    u = np.array(unitary, np.complex128)
    n = len(u)
    if u.shape != (n, n) or not np.allclose(u @ u.conj().T, np.eye(n), atol=_UNITARY):
        hint = "decompose the factors of its singular value decomposition"
        raise Error("NEUC-E660", f"a matrix of shape {list(u.shape)} is not unitary", hint=hint)
    right: list[tuple[int, float, float]] = []
    left: list[tuple[int, float, float]] = []
    if layout == "reck":
        for row in range(n - 1, 0, -1):
            right += [_clear_from_right(u, row, column) for column in range(row)]
    else:
        for diagonal in range(1, n):
            for step in range(diagonal):
                if diagonal % 2:
                    right.append(_clear_from_right(u, n - 1 - step, diagonal - 1 - step))
                else:
                    left.append(_clear_from_left(u, n - diagonal + step, step))
    phases = np.diag(u).copy()
    moved: list[tuple[int, float, float]] = []
    for mode, theta, phi in reversed(left):
        # T⁻¹(θ, φ) D = D' T(θ, φ'): the interferometers on the left go through the diagonal.
        one, two = phases[mode], phases[mode + 1]
        moved.append((mode, theta, float(np.angle(-one / two))))
        phases[mode] = -np.exp(-1j * phi) * two
    modes, theta, phi = zip(*(right + moved)) if right or moved else ((), (), ())
    return Mesh(n, np.array(modes, np.int64), np.array(theta, float), np.array(phi, float), np.angle(phases))


def _clear_from_right(u: Complex, row: int, column: int) -> tuple[int, float, float]:
    """U T⁻¹ on columns `column` and `column` + 1, so that U[row, column] is 0; the interferometer T."""
    a, b = u[row, column], u[row, column + 1]
    theta, phi = float(np.arctan2(abs(a), abs(b))), float(np.angle(a) - np.angle(b))
    c, s, turn = np.cos(theta), np.sin(theta), np.exp(-1j * phi)
    first, second = u[:, column].copy(), u[:, column + 1].copy()
    u[:, column], u[:, column + 1] = turn * c * first - s * second, turn * s * first + c * second
    return column, theta, phi


def _clear_from_left(u: Complex, row: int, column: int) -> tuple[int, float, float]:
    """T U on rows `row` - 1 and `row`, so that U[row, column] is 0; the interferometer T."""
    a, b = u[row - 1, column], u[row, column]
    theta, phi = float(np.arctan2(abs(b), abs(a))), float(np.angle(-b) - np.angle(a))
    c, s, turn = np.cos(theta), np.sin(theta), np.exp(1j * phi)
    first, second = u[row - 1].copy(), u[row].copy()
    u[row - 1], u[row] = turn * c * first - s * second, turn * s * first + c * second
    return row - 1, theta, phi
