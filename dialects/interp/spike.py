"""Meaning of the `spike` operations: loads the files that hold it, one for each file of the dialect."""

from __future__ import annotations

from neuc.dialects.interp import (  # noqa: F401 -- register their operations
    spike_coding,
    spike_neurons,
    spike_synapses,
    spike_time,
)
