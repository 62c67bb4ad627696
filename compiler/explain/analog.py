"""The long form of the error codes of analog crossbars, E64x to E66x."""

from __future__ import annotations

EXPLANATIONS: dict[str, str] = {
    "NEUC-E640": """There is no device model of this name.
Built in are ideal, pcm, hermes1, hermes2, joshi, reram, reram-cmo, sonos and table; packages add others through
the entry-point group neuc.devices. docs/analog.md says where each comes from and how to write one.""",
    "NEUC-E641": """A parameter of a device model makes no sense.
The model has no such parameter, or it is no finite number, or a factor on noise is negative. The hint lists
what the model has.""",
    "NEUC-E642": """A range of conductances is empty or reversed.
g_min is at least 0 and below g_max, both in microsiemens.""",
    "NEUC-E643": """Faults or temperature make no sense.
stuck_low and stuck_high are shares of all devices, together at most 1; temperature is in degrees Celsius, above
absolute zero.""",
    "NEUC-E644": """A time makes no sense.
Times are seconds after programming, 0 or more and finite; on the command line 30s, 1h, 1d, 30d and 1y are
understood, too.""",
    "NEUC-E645": """The crossbar program of an artifact is damaged.
Its description in the manifest, or the weights of a tile, are missing or have another form. Compile the model
again.""",
    "NEUC-E646": """A resistive network makes no sense.
Conductances are siemens, finite and not negative; there is at least one device; wire resistances are 0 or more
ohms.""",
    "NEUC-E647": """The SPICE simulator did not give all currents of a netlist.
Run the netlist by hand with `ngspice -b FILE` and read its messages.""",
    "NEUC-E648": """A seed makes no sense.
Seeds are whole numbers from 0 to 2^32 - 1; each stands for one programming of the chip.""",
    "NEUC-E649": """A table of measured devices cannot be used.
It is a CSV file with the columns target (microsiemens), time (seconds), mean and std (microsiemens), and one
row for each target at each time.""",
    "NEUC-E650": """Weights hold NaN or infinity.
No device holds such a weight. A diverged training leaves them behind; `neuc inspect MODEL` shows where they
are.""",
    "NEUC-E651": """The size of a tile, or how weights are put on it, makes no sense.
A tile is inputs x outputs, such as 256x256, both at least 1; the hint lists what the option takes.""",
    "NEUC-E652": """A converter, or how inputs are applied, makes no sense.
Converters have 2 to 16 bits ('none' is an ideal one) and a positive range; the hint says what the option takes.""",
    "NEUC-E653": """The layers do not fit on the chip.
With cores=N the chip has N arrays. Give more or larger ones, or leave layers on the CPU.""",
    "NEUC-E654": """Input ranges cannot be calibrated.
The data file is no .npz file with an array for each input of the model, holds no numbers, or parts of the model
run outside of compiled code. range=absmax scales each sample by its largest input and needs no data.""",
    "NEUC-E655": """The model has no simulated devices that could age.
Compile it for xbar-pcm, xbar-reram or another crossbar target; `neuc targets` lists them.""",
    "NEUC-E656": """Draws cannot be shared out with Dask.
It is not installed (pip install "neuc[cluster]"), or no scheduler answers at the address. Without --scheduler the CPUs
of this machine are used.""",
    "NEUC-E657": """The picture of a chip's arrays cannot be drawn.
matplotlib is missing (pip install "neuc[analog]"), or there are too many arrays for one picture; larger tiles make
fewer.""",
    "NEUC-E658": """Conductances or netlists cannot be exported as asked.
There is no such tile or array, the suffix of the file is neither .csv nor .h5, or h5py is missing
(pip install "neuc[analog]").""",
    "NEUC-E659": """A noise model cannot be made.
PyTorch is missing, what was passed is no torch module, or the target has no analog devices.""",
    "NEUC-E660": """A photonic mesh cannot be made.
Meshes are laid out as clements or reck, and hold unitary matrices; layers are decomposed by singular values first.""",
    "NEUC-E661": """An imperfection of a photonic mesh makes no sense.
Errors of phases and splitters, loss and crosstalk are 0 or more; phase converters have 1 to 24 bits, or none.""",
    "NEUC-E662": """Training in the array cannot start as asked.
The device that learns by pulses, the learning rule, the samples or a number makes no sense; the hint says what there
is. docs/analog.md shows the devices and rules.""",
    "NEUC-E663": """The layers would be cut into too many tiles.
Each tile is programmed, simulated and compiled by itself; tiny ones make thousands. Give larger tiles.""",
}
