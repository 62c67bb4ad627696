"""The long form of every error code, for `neuc explain`; each family's stand in a file of their own.

A test keeps this table and the codes raised in the source the same set. E0xx: usage; E1xx: model and import;
E2xx: passes, IR and accuracy; E3xx: artifact and runtime; E4xx: environment; E5xx: spiking networks; E60x to E63x:
energy models; E64x to E66x: analog crossbars; E67x to E69x: NPU dataflow.
"""

from __future__ import annotations

from neuc.compiler.explain import analog, cpu, energy, nir, npu, spiking

EXPLANATIONS: dict[str, str] = {
    **cpu.EXPLANATIONS,
    **nir.EXPLANATIONS,
    **spiking.EXPLANATIONS,
    **energy.EXPLANATIONS,
    **analog.EXPLANATIONS,
    **npu.EXPLANATIONS,
}
