"""What the codes E670 to E699 mean: NPU dataflow."""

from __future__ import annotations

EXPLANATIONS: dict[str, str] = {
    "NEUC-E670": """A machine file makes no sense.
A field is missing, unknown or negative, two figures contradict each other, or a figure has no provenance. The
message names the field. Machine files are TOML; copy one of backends/npu/machines and change it.""",
    "NEUC-E671": """There is no machine of this name.
The machines that come with neuc are npu-xdna1, npu-xdna2, npu-northpole, npu-dimc and npu-loihi2. A suffix takes
some of an array's columns (npu-xdna1-1col), and a path that ends in .toml is a machine of your own.""",
    "NEUC-E672": """The parts of a dataflow graph do not agree.
A port dangles, a link's parts do not fit, rates can never balance, or a transfer reaches outside its buffer. The
message names the parts. The graph is wrong on every machine.""",
    "NEUC-E674": """A pin is impossible.
A node was pinned to a tile outside the array, or to a tile of another kind: kernels stand on cores, links on memory
tiles, ports on shim tiles.""",
    "NEUC-E675": """The graph does not fit the array.
The message gives constraints that cannot hold together, none of which can be left out. Change one of them: fewer
kernels, fewer channels at one of them, smaller buffers, another pin, or a larger array.""",
    "NEUC-E676": """There are no routes for all channels.
More circuits would be needed between some tiles than their switches have. Pin kernels farther apart, or join
channels in memory tiles.""",
    "NEUC-E677": """A tile has too little of something.
Memory, locks, DMA channels or buffer descriptors run out at the tile the message names. Make buffers smaller or
shallower, or end fewer channels there.""",
    "NEUC-E678": """A program breaks rules of its machine.
The independent checker found what placement and routing should have kept, or what a hand-written program got wrong.
Each rule has a name and says what does not hold where.""",
    "NEUC-E679": """The program comes to a stop.
Everybody in the circle that the message gives waits for the next one. The smallest change of depths that cures it
is named if there is one; else tokens are produced at rates that never meet.""",
    "NEUC-E680": """A kernel's function is unknown or does not give what it should.
A function takes and gives as many tokens as its rates say, of the types its channels carry. Library functions have
names; others are passed as Python functions.""",
    "NEUC-E681": """A transfer of the host's sequence does not fit.
Its offset, sizes and strides reach outside the buffer, or it moves no whole number of tokens.""",
    "NEUC-E682": """OR-tools is not installed.
Proofs of placements, minimal reasons why nothing fits, and exact routing need it: pip install "neuc[npu]". Without
it annealing and negotiated routing do the work, and bounds are weaker.""",
    "NEUC-E683": """A program cannot be written in this form, or text cannot be read as one.
mlir-aie text needs a placed program for an XDNA array, of library functions: what a Python function computes, no graph
holds. Riallto's own metadata says nothing of what kernels compute, either. JSON holds any program.""",
    "NEUC-E684": """A file of measurements, or some of its rows, cannot be read.
It is a CSV with a header and the columns id, device, kind, shape, dtype, config, value and unit; an empty value
means that the row is predicted only. Values are numbers above 0, ids are a row's own.""",
    "NEUC-E685": """An application's call graph is no fixed graph.
Kernels must be called on tokens of the same sources each time, inputs are read and outputs assigned row by row, and
every result is used; each row of an output is assigned once. Data cannot steer the graph. The message names the kernel
or array.""",
    "NEUC-E686": """A simulation cannot run on these arrays.
Each input and weight of the design needs an array of its type and shape, and the run has a bounded number of
events.""",
    "NEUC-E687": """An NPU program in a file is damaged.
A field of the program is missing or makes no sense, or weights do not have its sizes. The message names the field.
Compile the model again.""",
    "NEUC-E688": """A prediction cannot be made for this machine or this work.
The machine file is of another family or lacks a figure the prediction needs, or the work does not fit the machine. The
message names it.""",
    "NEUC-E689": """A model of energies was given to a target that does not run it.
Targets for networks quantise layers, or run them in floats, and sweep over no spins. All models of energies run on
target cpu-relax, samplers of spins also on tsu-sim, relaxations of real variables also on xbar-*.""",
    "NEUC-E699": """A model cannot be written in int8 QDQ form with these calibration data.
Each input needs an array of its type and shape with rows along the first axis, values stay finite, and the model has
convolutions or products of float32 for int8 to replace.""",
}
