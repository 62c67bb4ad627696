"""Weights on photonic meshes: W = U S V, two meshes with attenuators between them; phase errors, loss, crosstalk.

A mesh is linear for given phases, so a layer with all its errors is one effective matrix, as for memory arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import cast

import numpy as np

from neuc.errors import Error, Exit
from neuc.runtime.analog.devices import Floats
from neuc.runtime.analog.interferometers import LAYOUTS, Complex, Imperfections, Mesh, decompose, transfer
from neuc.runtime.analog.streams import Purpose, stream
from neuc.runtime.analog.tiles import check_time


@dataclass(frozen=True)
class PhotonicChip:
    """What all meshes of a program have in common.

    Attributes:
        layout: ``clements`` or ``reck``.
        phase_error: standard deviation of every phase, radians.
        imbalance: standard deviation of splitters from 50:50, radians.
        loss_db: loss of one interferometer, dB.
        crosstalk: share of the mixing phases of both neighbours in its column that reaches a phase shifter.
        phase_bits: bits of phase converters over 2π; 0 for ideal ones.
    """

    layout: str = "clements"
    phase_error: float = 0.01
    imbalance: float = 0.0
    loss_db: float = 0.0
    crosstalk: float = 0.0
    phase_bits: int = 0

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            hint = f"choose {', '.join(LAYOUTS)}"
            raise Error("NEUC-E660", f"unknown mesh {self.layout!r}", hint=hint, exit_code=Exit.USAGE)
        for name in ("phase_error", "imbalance", "loss_db", "crosstalk"):
            value = cast(float, getattr(self, name))
            if not (math.isfinite(value) and value >= 0):
                raise Error("NEUC-E661", f"{name} = {value:g} makes no sense", hint="0 or more", exit_code=Exit.USAGE)
        if not 0 <= self.phase_bits <= 24:
            raise Error(
                "NEUC-E661", f"phase_bits = {self.phase_bits} makes no sense", hint="use 1 to 24, or 0 for none"
            )

    def parameters(self) -> dict[str, object]:
        """The attributes as plain data."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def program(self, weights: Floats, tile: int, seed: int) -> ProgrammedMeshes:
        """The meshes that hold `weights` ([inputs, outputs]).

        Args:
            weights: what to hold.
            tile: which tile of the program; decides the random numbers together with `seed`.
            seed: which draw.
        """
        u, s, v = np.linalg.svd(weights.T)
        largest = float(s[0]) if s.size and s[0] > 0 else 1.0
        meshes = [decompose(v, self.layout), decompose(u, self.layout)]
        errors = [self._errors(mesh, stream(seed, tile, Purpose.PHASES, part=i)) for i, mesh in enumerate(meshes)]
        held = ProgrammedMeshes(meshes, errors, s / largest, largest)
        # Loss is measured once and made good digitally, by the factor that brings the outputs nearest.
        found = held.matrix().real.T
        power = float((found * found).sum())
        return replace(held, gain=largest * float((found * weights).sum()) / power) if power else held

    def _errors(self, mesh: Mesh, rng: np.random.Generator) -> Imperfections:
        count = len(mesh.modes)
        theta, phi = (self.phase_error * rng.standard_normal(count) for _ in range(2))
        first, second = (self.imbalance * rng.standard_normal(count) for _ in range(2))
        if self.phase_bits:
            # The phase shifter inside is driven at twice the mixing angle.
            theta = theta + 0.5 * self._rounding(2 * mesh.theta)
            phi = phi + self._rounding(mesh.phi)
        if self.crosstalk:
            theta = theta + self.crosstalk * _neighbours(mesh)
        return Imperfections(theta, phi, first, second, 10 ** (-self.loss_db / 20))

    def _rounding(self, phases: Floats) -> Floats:
        """What rounding phases to the converter's steps adds to them."""
        step = 2 * np.pi / 2**self.phase_bits
        return np.rint(phases / step) * step - phases


@dataclass(frozen=True)
class ProgrammedMeshes:
    """A tile: the mesh light passes first, the attenuators, the second mesh.

    Attributes:
        meshes: both meshes.
        errors: what is wrong with them.
        attenuators: amplitudes behind the first mesh, at most 1.
        gain: what outputs are multiplied with, digitally: the largest singular value, and what light has lost.
    """

    meshes: list[Mesh]
    errors: list[Imperfections]
    attenuators: Floats
    gain: float

    def matrix(self) -> Complex:
        """Amplitudes from inputs to outputs, [outputs, inputs]."""
        first, second = (transfer(mesh, errors) for mesh, errors in zip(self.meshes, self.errors, strict=True))
        count = len(self.attenuators)
        return self.gain * (second[:, :count] * self.attenuators) @ first[:count]

    def weights(self, time: float) -> Floats:
        """The weights that coherent detection sees, [inputs, outputs]; phases are held, so `time` changes nothing."""
        check_time(time)
        return self.matrix().real.T


def _neighbours(mesh: Mesh) -> Floats:
    """For each interferometer the sum of the mixing angles above and below it in its column."""
    found = np.zeros(len(mesh.modes))
    for column in mesh.columns():
        near = np.diff(mesh.modes[column]) == 2
        found[column[:-1]] += np.where(near, mesh.theta[column[1:]], 0.0)
        found[column[1:]] += np.where(near, mesh.theta[column[:-1]], 0.0)
    return found
