"""Every error code in the source is explained, and no code is explained that nothing raises."""

from __future__ import annotations

import re
from pathlib import Path

from neuc.compiler.explain import EXPLANATIONS

ROOT = Path(__file__).parent.parent.parent
CODE = re.compile(r"NEUC-E\d{3}\b")


def _raised() -> dict[str, str]:
    found: dict[str, str] = {}
    for part in ("compiler", "dialects", "passes", "backends", "runtime"):
        for path in sorted((ROOT / part).rglob("*.py")):
            if path.parent.name == "explain":
                continue
            for line in path.read_text(encoding="utf-8").splitlines():
                # Docstrings name codes as prose; raising one takes a string literal.
                for code in CODE.findall(line) if '"NEUC-E' in line else []:
                    found.setdefault(code, str(path.relative_to(ROOT)))
    return found


def test_codes_and_explanations_are_the_same_set():
    raised = _raised()
    missing = {code: where for code, where in raised.items() if code not in EXPLANATIONS}
    assert not missing, f"unexplained: {missing}"
    assert not EXPLANATIONS.keys() - raised.keys(), "explained, but raised nowhere"


def test_explanations_say_what_and_what_to_do():
    for code, text in EXPLANATIONS.items():
        first, _, rest = text.partition("\n")
        assert first.strip().endswith("."), code
        assert len(rest.split()) >= 8, f"{code}: more than a sentence is needed"
