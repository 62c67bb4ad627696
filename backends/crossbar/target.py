"""The crossbar targets: what each assumes where its user says nothing."""

from __future__ import annotations

from neuc.backends.crossbar.options import MESH_OPTIONS, OPTIONS, mesh_passes, passes_with
from neuc.backends.paradigm_target import ParadigmTarget

place_sim = passes_with("xbar-sim", {"device": "ideal", "dac_bits": "none", "adc_bits": "none", "compensation": "none"})
place_pcm = passes_with("xbar-pcm", {"device": "pcm", "out_noise": "0.04"})
place_reram = passes_with("xbar-reram", {"device": "reram", "out_noise": "0.04"})

place_mesh = mesh_passes

# One small product: an 8-bit converter that clips the largest of its results, and the noise of its devices.
_DEVIATION = 0.25

TARGETS: tuple[ParadigmTarget, ...] = (
    ParadigmTarget("xbar-sim", "analog crossbars with ideal devices and converters", f"{__name__}:place_sim", OPTIONS),
    ParadigmTarget(
        "xbar-pcm",
        "analog crossbars of phase-change memory, 8-bit converters",
        f"{__name__}:place_pcm",
        OPTIONS,
        deviation=_DEVIATION,
    ),
    ParadigmTarget(
        "xbar-reram",
        "analog crossbars of resistive memory, 8-bit converters",
        f"{__name__}:place_reram",
        OPTIONS,
        deviation=_DEVIATION,
    ),
    ParadigmTarget(
        "xbar-mesh",
        "photonic meshes of interferometers, 8-bit converters",
        f"{__name__}:place_mesh",
        MESH_OPTIONS,
        deviation=_DEVIATION,
    ),
)
