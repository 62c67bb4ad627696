"""What the codes E500 to E519 mean: spiking networks in NIR, and what chips can hold of them."""

from __future__ import annotations

EXPLANATIONS: dict[str, str] = {
    "NEUC-E500": """The file is no NIR file, or a damaged one.
NIR graphs are HDF5 files with a group /node, as nir.write makes them. Sizes are checked against the size of the file
before anything is read; links, and data that are kept in other files, are refused.""",
    "NEUC-E501": """The NIR graph is put together wrongly.
A node has an unknown type or lacks a field, an edge names a node that is not there, goes into an Input or comes out of
an Output, there is no Input or Output, or an inner graph has several of them, which edges cannot tell apart. The 18
primitives of NIR 1.0 are read, nested or not.""",
    "NEUC-E502": """Numbers of a NIR graph make no sense.
Weights and parameters are finite, time constants positive and not shorter than a step: with forward Euler a membrane
would overshoot. The step is dt in the graph's metadata, or --dt; 1e-4 s if neither is there.""",
    "NEUC-E503": """Shapes in the NIR graph do not go together.
They are computed from the Input and the weights; what files say about the shapes of inner nodes is not believed,
because it is wrong for grouped and non-square convolutions. NIR's shapes have no batch axis, so torch's Flatten(1) is
start_dim 0; where only that fits the layer behind it, it is read so, and the report says it.""",
    "NEUC-E504": """The NIR graph holds something neuc does not have.
The message says what, and the hint what to write in its place.""",
    "NEUC-E505": """A cycle of the NIR graph has no delay.
Its value at a time would depend on itself at the same time. A cycle needs something that remembers: a neuron, an
integrator or a Delay; all other nodes answer at once.""",
    "NEUC-E506": """An option of reading or writing NIR makes no sense.
--dt is a positive number of seconds; --reset is file (NIR's own meaning), subtract or snntorch; --shape NAME=8x1x784
fixes steps and samples of an input, and leaves the rest as it is.""",
    "NEUC-E507": """The network cannot be written in NIR.
NIR has binary spikes, and neurons that reset to a value; graded and signed spikes, adaptive neurons, max-pooling and
arithmetic outside neurons have no node. All that stands in the way is listed. The pass expand-graded-spikes makes
binary spikes of others, and says what that costs; spikes that carry changes have to carry rates for that: convert
with --coding rate.""",
    "NEUC-E508": """NIR needs packages that are not installed.
Install them with `pip install "neuc[snn]"`: h5py to read, nir and h5py to write.""",
    "NEUC-E509": """A time loop has no steps.
The input of a spiking network is [T, B, ...], and T is at least 1.""",
    "NEUC-E510": """The spiking network does not fit the chip.
Limits of the chip are listed with their sources by `neuc check MODEL --target chip:NAME`. Some are published by the
maker, some are assumed because nothing is published; the list says which.""",
}
