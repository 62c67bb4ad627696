"""The long form of the error codes of analog crossbars, E64x to E66x."""

from __future__ import annotations

EXPLANATIONS: dict[str, str] = {
    "NEUC-E640": """There is no device model of this name.
Built in are ideal, pcm, hermes1, hermes2, joshi, reram, reram-cmo, sonos and table; packages add others through the
entry-point group neuc.devices. docs/analog.md says where each comes from and how to write one.""",
    "NEUC-E641": """A parameter of a device model makes no sense.
The model has no such parameter, or it is no finite number, or a factor on noise is negative. The hint lists what the
model has.""",
    "NEUC-E642": """A range of conductances is empty or reversed.
g_min is at least 0 and below g_max, both in microsiemens.""",
    "NEUC-E643": """Faults or temperature make no sense.
stuck_low and stuck_high are shares of all devices, together at most 1; temperature is in degrees Celsius, above absolute
zero.""",
    "NEUC-E644": """A time makes no sense.
Times are seconds after programming, 0 or more and finite; on the command line 30s, 1h, 1d, 30d and 1y are understood,
too.""",
    "NEUC-E646": """A resistive network makes no sense.
Conductances are siemens, finite and not negative; there is at least one device; wire resistances are 0 or more ohms.""",
    "NEUC-E647": """The SPICE simulator did not give all currents of a netlist.
Run the netlist by hand with `ngspice -b FILE` and read its messages.""",
}
