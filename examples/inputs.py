"""Real input for the example models: log-mel frames of a spoken-like sound, and sentences as token numbers."""

from __future__ import annotations

import pydoc_data.topics
import re
from pathlib import Path

import numpy as np

RATE, FRAME, HOP, MELS, FRAMES = 16_000, 321, 160, 120, 900


def spoken_sound(seconds: float = 9.01, seed: int = 0) -> np.ndarray:
    """A synthetic voice: a buzzing source at a wandering pitch through the resonances of changing vowels."""
    rng = np.random.default_rng(seed)
    count = int(seconds * RATE)
    time = np.arange(count) / RATE
    pitch = 120 + 15 * np.sin(2 * np.pi * 0.7 * time + rng.uniform(0, 6)) + 8 * np.sin(2 * np.pi * 2.3 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    vowels = np.array([[730, 1090, 2440], [270, 2290, 3010], [300, 870, 2240], [530, 1840, 2480]])
    which = rng.integers(0, len(vowels), size=int(seconds * 4) + 2)
    formants = vowels[which[(time * 4).astype(int)]]
    sound = np.zeros(count)
    for harmonic in range(1, 30):
        frequency = harmonic * pitch
        gain = sum(1 / (1 + ((frequency - formants[:, k]) / (60 + 40 * k)) ** 2) for k in range(3))
        sound += gain * np.sin(harmonic * phase) / harmonic
    syllables = np.clip(np.sin(2 * np.pi * 2 * time) + 0.3, 0, 1)
    sound = sound * syllables + 0.002 * rng.standard_normal(count)
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def log_mel(sound: np.ndarray) -> np.ndarray:
    """The speech model's features ``[1, 900, 120]``: mel power spectrum in dB, scaled around zero."""
    padded = np.pad(sound[: (FRAMES - 1) * HOP + 1], FRAME // 2)
    starts = HOP * np.arange(FRAMES)[:, None] + np.arange(FRAME)
    window = np.hanning(FRAME + 1)[:-1]
    power = np.abs(np.fft.rfft(padded[starts] * window)) ** 2
    mel = power @ _mel_filters(power.shape[1]).T
    decibel = 10 * np.log10(np.maximum(mel, 1e-10))
    decibel = np.maximum(decibel - decibel.max(), -80)
    return ((decibel + 40) / 40).astype(np.float32)[None]


def _mel_filters(bins: int) -> np.ndarray:
    """Triangles of equal area, evenly spaced on Slaney's mel scale (linear below 1 kHz, logarithmic above)."""
    knee, step = 15.0, np.log(6.4) / 27
    top = knee + np.log(RATE / 2 / 1000) / step
    mels = np.linspace(0, top, MELS + 2)
    edges = np.where(mels < knee, mels * 200 / 3, 1000 * np.exp(step * (mels - knee)))
    frequencies = np.linspace(0, RATE / 2, bins)
    rising = (frequencies - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequencies) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]


def sentences(count: int) -> list[str]:
    """English sentences out of the Python manual that every Python carries."""
    text = " ".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    plain = re.sub(r"[*`_\\]", "", re.sub(r"\s+", " ", text))
    found = re.findall(r"(?<=[.] )[A-Z][a-z][^.:;|=+<>(){}\[\]\"]{30,160}[.](?= )", plain)
    chosen = list(dict.fromkeys(found))
    return chosen[:: max(1, len(chosen) // count)][:count]


def tokenize(texts: list[str], tokenizer: Path) -> dict[str, np.ndarray]:
    """Texts as ``input_ids`` and ``attention_mask``, padded to the longest."""
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(str(tokenizer))
    encoder.enable_padding()
    encoder.enable_truncation(128)
    encoded = encoder.encode_batch(texts)
    return {
        "input_ids": np.array([e.ids for e in encoded], dtype=np.int64),
        "attention_mask": np.array([e.attention_mask for e in encoded], dtype=np.int64),
    }
