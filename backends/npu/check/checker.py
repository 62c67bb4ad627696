"""`violations`: every rule applied to a design; `check` refuses one that breaks any."""

from __future__ import annotations

from neuc.backends.npu.check import dma_rules, host_rules, memory_rules, placement_rules, route_rules
from neuc.backends.npu.check.facts import Facts, Rule, Violation
from neuc.errors import Error
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.program import Design

RULES: tuple[Rule, ...] = (
    *placement_rules.RULES,
    *memory_rules.RULES,
    *dma_rules.RULES,
    *route_rules.RULES,
    *host_rules.RULES,
)


def violations(design: Design, machine: Machine) -> list[Violation]:
    """Every rule the design breaks; a design at an early stage breaks those of later ones."""
    facts = Facts(design, machine)
    return [found for rule in RULES for found in rule(facts)]


def check(design: Design, machine: Machine) -> None:
    """Refuse a design the machine cannot run.

    Raises:
        Error: NEUC-E678, with the first rules it breaks.
    """
    found = violations(design, machine)
    if found:
        shown = "; ".join(map(str, found[:4])) + (f"; and {len(found) - 4} more" if len(found) > 4 else "")
        raise Error("NEUC-E678", f"{design.name} on {machine.name}: {shown}", hint="correct what the rules name")
