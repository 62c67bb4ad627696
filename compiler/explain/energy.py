"""What the codes E600 to E639 mean: energy models and relaxation."""

from __future__ import annotations

EXPLANATIONS: dict[str, str] = {
    "NEUC-E600": """A coupling must be symmetric and is not.
An energy couples two sites with one number whichever way it is read. Use the mean of the matrix and its transpose,
or energy.vector_field, which has forces without an energy (and can be neither sampled nor contrasted).""",
    "NEUC-E601": """A parameter of an energy holds NaN or infinity.
The message names it. Check where the numbers come from: a logarithm of 0 is the usual reason; use a small
probability instead.""",
    "NEUC-E602": """A coupling joins sites that it cannot join.
A site number is outside the variable, or a spin is coupled to itself, where its square is 1 and says nothing.
Sites are numbered row by row, from 0.""",
    "NEUC-E603": """A block of sites that are updated at once holds sites that depend on each other.
Such sweeps look right and sample from another distribution. The pass color-blocks finds blocks that are
independent; energy.color with blocks of one's own must list every free site once and keep neighbours apart.""",
    "NEUC-E604": """A sampler does not take this model.
Samplers of spins and categories take linear, bilinear, edges, stencil and table terms; real variables are sampled
with rule = langevin or ou_exact. Metropolis flips spins only.""",
    "NEUC-E605": """A schedule makes no sense.
There is at least one sweep, and every inverse temperature is a finite number above 0; a seed is an integer of 64 bits.
One run makes at most 2^27 sweeps: for more, run again from the last state.
For a quench give a large inverse temperature.""",
    "NEUC-E606": """A model is to be swept that has no blocks.
Run the pass color-blocks before, as neuc compile and Program.interpret do, or write energy.color into the text.""",
    "NEUC-E607": """An array of an agent is no distribution, or does not fit the others.
Columns of A and B and the vectors of D add up to 1 over their first axis. The message names the array: divide it by
its sum over axis 0, and check the order of its other axes.""",
    "NEUC-E608": """A conductance of a resistor network is negative.
Conductances are at least 0. What should inhibit gets a second node with the voltage of opposite sign.""",
    "NEUC-E610": """The method does not fit the energy.
block_min needs, for each variable, a quadratic energy whose sites are independent of each other and have a minimum;
mean_field and messages need beliefs; ou_exact needs a quadratic energy. method = flow takes every energy.""",
    "NEUC-E611": """The matrix of a linear system is not positive definite.
Its samples would spread without end. A symmetric matrix with positive eigenvalues is needed; for others solve the
normal equations.""",
    "NEUC-E612": """A parameter of a sampled model is not constant.
Blocks, orders of sites and layouts of couplings are made when the model is compiled, so couplings must be
store.constant. The interpreter takes any.""",
    "NEUC-E614": """A model or program is used in a way that cannot work.
Names of variables are unique, variables and terms come before the first state, a program has results, and a run is
given the inputs that have no default. The message says which of these it was.""",
    "NEUC-E615": """The CPU kernels do not take this model, though the interpreter does.
The message says what it is; Program.interpret runs it. Most such models can be written otherwise, as the hint says.""",
    "NEUC-E616": """Labels to learn from are not class numbers.
There is one integer for each image, from 0 to the number of classes less 1, which is the last of the sizes. One-hot
labels: take argmax(1).""",
    "NEUC-E617": """Images to learn from have another shape than the network, or images hold NaN or infinity.
They are rows of numbers, as many as the first of the sizes: images.reshape(len(images), -1). Numbers of size 1, such as
pixels in 0 to 1, suit the rates.""",
    "NEUC-E618": """The sizes of a network to be trained make none.
They are inputs, one or more hidden layers, and at least two classes: (64, 128, 10).""",
    "NEUC-E619": """A schedule, method or option of learning makes no sense.
At least one epoch, a batch of one to all images, and rates, nudges and numbers of steps above 0. The message says which
it was; energy.EquilibriumPropagation, PredictiveCoding and ForwardForward list the options and what they mean.""",
    "NEUC-E620": """Weights became infinite or NaN while learning.
The steps were too large: give a smaller rate, for predictive coding also a smaller dt, and scale pixels to 0 to 1.""",
    "NEUC-E621": """A relaxation diverges.
Its numbers grow beyond what f32 holds, and nothing after that means anything. The message names the variable and the
step where the interpreter sees it, else the result. Values of a flow or block_min above 1e6 times the largest input
(or 1) are computed again with twice the steps: if they are ten times as large then, they diverge, too. Take a smaller
dt (below 2 over the largest curvature), give variables a box, or add an energy.quad so that the energy has a minimum;
smaller couplings help where block_min has none.""",
    "NEUC-E630": """A clamped variable is in no term of the model.
Whatever is clamped there, nothing feels it, so a coupling was probably forgotten. Add a term that reads it, or leave
the variable out.""",
    "NEUC-E631": """A system to be solved by sampling does not fit together.
A is a square matrix, b has one number a row, and there is at least one sample and one point of integration.""",
    "NEUC-E632": """An agent is used in a way that cannot work.
It observes one number for each modality before it acts; Dirichlet parameters have the shapes of A and B, are 0 or more,
and have something in every column. The message says which of these it was.""",
    "NEUC-E633": """A relaxation has no form as a network of integrate-and-fire neurons.
It is of one real vector in [0, high] with a quadratic energy and constant parameters; other variables are clamped, and
costs do not nudge. The message says what is different. Other relaxations run on target cpu-relax.""",
    "NEUC-E634": """A model is no resistor network that SPICE could check.
A netlist has real variables as nodes, resistor terms and linear ones (currents), with constant conductances, and a
voltage for every clamped site. The message says what else there is.""",
    "NEUC-E635": """A network cannot be written as a Hopfield or predictive-coding network.
It has one input and one output, and is made of affine operations, functions of single numbers, products of branches
and pooling; a Hopfield network's activations are Relu, Tanh, Sigmoid or Clip to 0 … 1. Softmax, attention and
recurrent layers have no such form here. The message names the node.""",
    "NEUC-E636": """There is nothing to draw, or nothing to draw with.
--plots draws what a program made with neuc.energy returns: energies, sums, pairs, histograms, values of variables. It
needs matplotlib: pip install "neuc[plot]".""",
    "NEUC-E637": """A model of spins does not fit the grid of a sampling chip.
Each spin takes one cell, and every coupling has to be a wire between two cells: few neighbours for each spin, no cycles
of odd length, a shape like the grid's. For models of up to 64 free spins with up to 100 couplings chains of cells are
tried, too. The message names the spins that fit nowhere. Target cpu-relax takes any graph.""",
    "NEUC-E638": """A program asks a sampling chip for what it does not do.
The chip makes Gibbs sweeps over spins with fields and couplings of two. Categories, factors of three spins, Metropolis
steps and exchanges of replicas run on target cpu-relax. A model whose spins are chains of cells is sampled and read:
nothing is observed on the way, clamped or evaluated.""",
    "NEUC-E639": """A program in THRML's terms cannot be compiled.
neuc.thrml takes spins and categories in blocks of one kind, factors with one weight tensor for each tuple of nodes, and
the two Gibbs conditionals; every node is in one free or clamped block, and states have [..., nodes of the block]. The
message says which of these it was. Values inside jax.jit have no numbers: build the model outside.""",
}
