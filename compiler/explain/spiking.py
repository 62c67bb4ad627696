"""What the codes E500 to E549 mean: spiking networks."""

from __future__ import annotations

EXPLANATIONS: dict[str, str] = {
    "NEUC-E520": """There are no calibration data.
Thresholds of spiking neurons are found from what the network's activations are on some inputs. Give at least one
sample; some hundred that are like the inputs the network is for are better.""",
    "NEUC-E521": """Calibration meets NaN or infinity.
Either the data hold some, or the float network computes them, from a weight that is NaN, say. The message names the
input, or the first activation where it happens.""",
    "NEUC-E523": """The number of time steps makes no sense.
T is at least 1. A read-out may leave out the first steps, but not all of them.""",
    "NEUC-E524": """The model has operations without a spiking form.
All of them are listed with the reason. Recipe a (binary spikes) has affine operations, ReLU, clip and max-pooling;
recipes b and c have any function of f32 tensors between neurons, too, as functions of the mean so far. Operations
behind the last activation are always possible: they run once, at the end.""",
    "NEUC-E525": """Nothing in the model would spike.
Neurons stand where activations are: ReLU, ReLU6, clip, LeakyReLU and HardSigmoid become some, and recipes b and c put
neurons before every product behind another function. A network without any would be the float network in disguise.""",
    "NEUC-E527": """A recipe, or an option of one, does not exist.
Recipes are a, b, c and auto; b and c take levels (1 to 7) and a coding, rate or differential; the hint lists the ways
to find thresholds.""",
    "NEUC-E528": """No recipe reaches the goal.
`auto` tried all recipes with up to --max-steps time steps, and none kept the accuracy within --max-drop on the
calibration data. The message says what came closest. Allow more steps or a larger drop.""",
    "NEUC-E529": """A neuron has no threshold, or one that is no positive number.
`convert-ann-to-snn` takes thresholds from the attribute spike.threshold of each marked map, one for each channel.
neuc.convert_to_snn and `neuc convert --to snn` find them by calibration; in IR text they can be written and edited.""",
    "NEUC-E530": """Labels do not go with the data.
There has to be one label for each sample: the number of one of the network's outputs, which count from 0.""",
    "NEUC-E531": """Pictures need matplotlib, which is not installed.
Install it with `pip install "neuc[plot]"`. All numbers that pictures show are in the report, too.""",
    "NEUC-E540": """The program cannot be fed with a stream of events.
`EventStream` needs one input of events, int8 [T, 1, P, H, W] or [T, 1, N], and for each state an input and an output of
the same shape. Write the loop's states as arguments and results of @main (`docs/spiking.md`, streams).""",
    "NEUC-E541": """Events make no sense to the stream.
Times have to ascend from call to call, columns, rows and polarities to lie within the sensor, and steps that have run
cannot get further events. Sort the packet, or choose a larger step.""",
    "NEUC-E542": """There are no counts to estimate a chip's cost from.
Costs come from spikes, synaptic operations and neuron updates that a simulated run counted, for as many steps as the
run had. Pass an `Activity` to `SpikingModel.run_over_time` first.""",
    "NEUC-E543": """The network's state cannot be passed in and out.
The pass `expose-spike-state` takes networks of one loop of a fixed number of steps, as `neuc convert` makes them, with
any encoders, decoders and delayed read-outs. It refuses loops that scan inputs or give all their steps (networks for
streams are written with their states as arguments), states that are events or the ring of a delay, because a sample
that is done cannot leave them, and operations of other kinds that ask which step it is.""",
    "NEUC-E544": """The program cannot stop early, or not in this way.
`Anytime` runs programs that the pass `expose-spike-state` has made: classifiers with outputs [N, classes]. Its hint
says what was missing.""",
}
