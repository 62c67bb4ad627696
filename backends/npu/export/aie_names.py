"""Names that MLIR can read: letters, digits and underscores, each once, and none that the text has for itself."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from neuc.backends.npu.export.aie_library import LIBRARY
from neuc.runtime.npu.program import Design, SetParam, Transfer, Wait

_OWN = re.compile(
    r"(tile|core|sums|block|lanes|lines|rtp|curve\d*)_.*|main|sequence|[tv]\d+|"
    + "|".join(k.symbol for k in LIBRARY.values())
)


def legal_names(design: Design) -> Design:
    """The design with such names, those of its nodes, channels and host buffers; the others are as they were."""
    named = [part.name for part in (*design.nodes, *design.channels, *design.buffers)]
    new = _legal(named)
    if all(new[name] == name for name in named):
        return design

    def all_of(names: Iterable[str]) -> tuple[str, ...]:
        return tuple(new[name] for name in names)

    steps: list[Transfer | Wait | SetParam] = []
    for step in design.sequence:
        if isinstance(step, SetParam):
            steps.append(step)
        elif isinstance(step, Wait):
            steps.append(replace(step, port=new[step.port]))
        else:
            steps.append(replace(step, port=new[step.port], buffer=new[step.buffer]))
    return replace(
        design,
        kernels=tuple(
            replace(k, name=new[k.name], inputs=all_of(k.inputs), outputs=all_of(k.outputs)) for k in design.kernels
        ),
        channels=tuple(
            replace(c, name=new[c.name], producer=new[c.producer], consumers=all_of(c.consumers))
            for c in design.channels
        ),
        links=tuple(
            replace(link, name=new[link.name], inputs=all_of(link.inputs), outputs=all_of(link.outputs))
            for link in design.links
        ),
        ports=tuple(replace(p, name=new[p.name], channel=new[p.channel]) for p in design.ports),
        buffers=tuple(replace(b, name=new[b.name]) for b in design.buffers),
        params=tuple(replace(p, kernel=new[p.kernel]) for p in design.params),
        sequence=tuple(steps),
        shared={new[name]: tile for name, tile in design.shared.items()},
        pools=(),
        dmas=(),
        routes=(),
    )


def _legal(names: list[str]) -> dict[str, str]:
    """Each name's new one; those that need none keep theirs, whoever else would like it."""
    new = {name: name for name in names if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) and not _OWN.fullmatch(name)}
    taken = set(new.values())
    for name in dict.fromkeys(names):
        if name in new:
            continue
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        if not re.match(r"[A-Za-z_]", plain) or _OWN.fullmatch(plain):
            plain = f"n_{plain}"
        number, made = 1, plain
        while made in taken:
            number += 1
            made = f"{plain}_{number}"
        new[name] = made
        taken.add(made)
    return new
