"""Meaning of the encoders, decoders and delays of `spike`."""

from __future__ import annotations

import numpy as np

from neuc.dialects import spike
from neuc.dialects.interp.core import Env, implements
from neuc.dialects.interp.philox import uniforms

Array = np.ndarray


@implements(spike.SilenceOp)
def _silence(op: spike.SilenceOp, args: list[Array], env: Env) -> list[Array]:
    return [np.zeros(env.shape_of(op.events), np.int8)]


@implements(spike.EncodeRateOp)
def _encode_rate(op: spike.EncodeRateOp, args: list[Array], env: Env) -> list[Array]:
    x, step = args
    u = uniforms(x.size, int(step), op.seed.value.data).reshape(x.shape)
    return [(u < x).astype(np.int8)]


@implements(spike.EncodeLatencyOp)
def _encode_latency(op: spike.EncodeLatencyOp, args: list[Array], env: Env) -> list[Array]:
    x, step = args
    late = (np.float32(1) - np.minimum(x, np.float32(1))) * np.float32(op.steps.value.data - 1)
    when = np.floor(late + np.float32(0.5))
    return [((x > 0) & (when == np.float32(int(step)))).astype(np.int8)]


@implements(spike.EncodeDeltaOp)
def _encode_delta(op: spike.EncodeDeltaOp, args: list[Array], env: Env) -> list[Array]:
    x, reference, threshold = args
    change = x - reference
    events = (change >= threshold).astype(np.int8) - (change <= -threshold).astype(np.int8)
    return [events, reference + threshold * events]


@implements(spike.AccumulateOp)
def _accumulate(op: spike.AccumulateOp, args: list[Array], env: Env) -> list[Array]:
    x, total = args[:2]
    if op.step is not None and int(args[2]) < op.start.value.data:
        return [total]
    return [total + x.astype(total.dtype)]


@implements(spike.FirstSpikeOp)
def _first_spike(op: spike.FirstSpikeOp, args: list[Array], env: Env) -> list[Array]:
    events, first, step = args
    return [np.where(events != 0, np.minimum(first, np.int32(int(step))), first)]


@implements(spike.DelayOp)
def _delay(op: spike.DelayOp, args: list[Array], env: Env) -> list[Array]:
    x, ring = args
    return [ring[0], np.concatenate([ring[1:], x[None]])]
