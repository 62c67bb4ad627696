"""What the codes E0xx to E4xx mean: usage, models, passes, artifacts, the environment."""

from __future__ import annotations

EXPLANATIONS: dict[str, str] = {
    "NEUC-E001": """Nothing is registered under this name.
Commands, passes and targets are listed by `neuc --help`, `neuc passes` and `neuc targets`. The hint offers the
names most like the one given. Passes of other installed xDSL packages count, too: `neuc passes --all`.""",
    "NEUC-E002": """An option is unknown or its value makes no sense.
The message names the option and the value, the hint says what would do. `neuc COMMAND --help` lists all options
of a command with their defaults.""",
    "NEUC-E003": """A pass pipeline cannot be read.
A pipeline is a comma-separated list of passes, each with options in braces, separated by spaces:
'quantize-to-ternary{planes=3 scale="group"},tile-lut{encoding="tl2"}'. Text values are quoted. `neuc passes`
lists every pass with its options, their types and defaults.""",
    "NEUC-E004": """A file cannot be read.
It does not exist, is a folder, is not text where text was expected, or you may not read it. Check the path.""",
    "NEUC-E005": """An output file cannot be written.
This is found out before the work starts where possible: the folder is missing, is not writable, or the disk is
full. Nothing half-written is left behind. Choose another place (-o).""",
    "NEUC-E006": """Input data cannot be read, or do not belong to the model.
An input is given as NAME=@file.npy, NAME=1x28x28xf32=0 (shape, element type, one value or as many as the shape
holds), NAME=random:SEED, or @file.npz for all inputs at once. `neuc inspect MODEL` shows the names, types and
shapes. Arrays that need pickle are refused.""",
    "NEUC-E008": """There is no IR of this level.
An artifact holds IR only if it was compiled with --keep-ir, and a compilation that stopped early, or started
from IR text, did not pass through every level. Inspect the model itself with `neuc inspect MODEL --ir LEVEL`.""",
    "NEUC-E101": """The model has operators that the target cannot run, and running them elsewhere was forbidden.
All of them are listed, grouped by cause. With --fallback host (the default) they run in onnxruntime, in as few
segments as possible. `neuc check MODEL --target T` shows the same list without compiling.""",
    "NEUC-E102": """The file or object is not a model neuc reads.
ONNX files are read, and IR text with the suffix .mlir. Checkpoints and other formats have to be exported to
ONNX first, for PyTorch with torch.onnx.export(..., dynamo=True) or by giving neuc.compile the module and
example inputs.""",
    "NEUC-E103": """The file is not an ONNX model, or not a whole one.
It is empty, cut off, damaged, larger than protobuf can hold, or cannot be read. Export or download it again;
models above 2 GB keep their weights in a second file (external data).""",
    "NEUC-E104": """The model contradicts the ONNX standard.
A value is used but never made, a name is defined twice, an input has no type, the graph has a cycle, or the
checker of the onnx package refuses it. The message names the node. Export the model again with a recent
exporter.""",
    "NEUC-E105": """A tensor in the model contradicts itself.
Its shape, element type and number of bytes do not fit together. The file is damaged, or a tool wrote it
wrongly.""",
    "NEUC-E106": """External tensor data cannot be used.
The data file is missing or too short, or the model names a place outside its own folder, which is refused: a
model file must not be able to read other files of yours. Keep the data file beside the model.""",
    "NEUC-E107": """The model uses operators or attributes that do not exist as it uses them.
All of them are listed. The operator's name is misspelled, it is newer than the opset the model declares, or the
attribute has a form that the IR cannot hold. Export the model again, declaring the right opset.""",
    "NEUC-E108": """Shapes contradict each other.
Shape inference found operands that cannot go together, or a shape given with --shape contradicts the model's
own. The message names the node or the input.""",
    "NEUC-E109": """The model is of a version this neuc does not know.
Its IR version or an opset is newer than the onnx package here, or an operator's domain is used without a
version. Update neuc, or export the model with an older opset.""",
    "NEUC-E110": """The model's local functions cannot be inlined.
A function calls itself, inlining would give more nodes than is sane, or the function is written for another
opset in which one of its operators means something else.""",
    "NEUC-E112": """PyTorch could not export the module.
The message is that of torch.onnx.export. The module has to be traceable by torch.export: no control flow that
depends on values, no operators without an ONNX form.""",
    "NEUC-E113": """The module has no ONNX form.
Only the graph level, and host segments, can be written as ONNX: operations of other dialects have no
counterpart there.""",
    "NEUC-E114": """No weight of the model can be written in this low-bit form.
A form holds certain levels (INT2: -2 to 1), and scales per tensor, row or group of columns. Weights are written as
they are, never quantised: the model must have been trained or quantised to few levels before. `neuc compile --report`
shows which layers hold few levels.""",
    "NEUC-E120": """The file is not a GGUF file neuc reads, or not a whole one.
Versions 2 and 3 in little-endian order are read. Counts, lengths, offsets and names are checked against the size of
the file before they are believed; the message says which of them is wrong. Download or convert the file again.""",
    "NEUC-E121": """What the type of a tensor means cannot be told.
Programs have given out the same type ids for different things: 36, 38, 39 and 42 above all (docs/formats.md). The
room the file leaves for a tensor and the model's architecture usually tell which is meant; where they do not,
--read-as does. TL1 and TL2 need the block sizes of their kernels (--tl), which are in no file.""",
    "NEUC-E122": """A tensor's bytes are not what its format allows.
Its size, shape and format contradict each other, a code stands for no level, or a scale is no finite number: no
program writes this. The file is damaged, or it is in another layout than assumed (--read-as, --tl).""",
    "NEUC-E123": """Tensors cannot be stored in that format without changing them.
A format has scales per tensor, row or group and a number of columns it can hold; some have a fourth level. All
tensors that stand in the way are named with the reason, and nothing is written. If only scales would be rounded,
--lossy-scales allows it and reports by how much.""",
    "NEUC-E124": """A Hugging Face folder cannot be read.
It needs config.json and model.safetensors (or its index with all files), which must agree with each other. Packed
weights also need a quantization_config that says whether weight_scale divides (linear_class bitlinear) or
multiplies (autobitlinear): its size does not tell. Pickled weights are never opened.""",
    "NEUC-E125": """The weights are stored in another basis than the model computes in.
Metadata keys prism.hadamard.* describe a rotation of the inputs. Without it the weights give garbage and no error,
so whoever does not apply it refuses the file. `neuc inspect` and `neuc convert` work: they do not compute with it.""",
    "NEUC-E126": """A file or folder with weights is no decoder that can be compiled.
Decoders of a few architectures are, with ternary linear layers in any block format `neuc inspect` shows; embeddings and
heads may be F32, F16, BF16, Q8_0, Q4_0 or Q6_K. All tensors at fault are listed. Other models come in through ONNX.""",
    "NEUC-E201": """A constant's data are missing.
F.mlir refers to arrays that lie in F.weights.safetensors beside it, or in weights.safetensors of a --dump-ir
folder. Keep the files together.""",
    "NEUC-E202": """A weight store cannot be read, or its bytes have changed.
Each array's hash is kept in the file and checked on reading. Compile the model to this level again.""",
    "NEUC-E203": """The IR and the weight store do not belong together.
An array has another type, shape or content than when the IR was written. Both files come from one compilation;
take them from the same one.""",
    "NEUC-E210": """The interpreter was given inputs that do not fit the function.
Names, number and shapes of the arguments have to be those of the function's type.""",
    "NEUC-E220": """An option of the ternary quantisation is out of range.
Planes are 1 to 4 (0 keeps a layer as float), scales are row, group or tensor, and weights must be finite
numbers.""",
    "NEUC-E221": """A layer named in an option does not exist.
Layers are called after their first ONNX node. The compile report, and `neuc inspect`, list them.""",
    "NEUC-E223": """Ternary weights come from outside their function.
A ternary.weight operation has to stand in the function that uses it, since its data are looked up there.""",
    "NEUC-E230": """An option of tile-lut is out of range.
g is 1 to 5, BM and BK are positive, and g has to divide a group's columns. 0 lets the cost model choose.""",
    "NEUC-E250": """IR text cannot be parsed.
The message gives file, line and column. `neuc opt FILE` reads the same syntax; --print-op-generic prints the
form without any custom syntax.""",
    "NEUC-E251": """A module does not verify.
The message gives the line where it can be told, the operation, and which of its rules is broken.""",
    "NEUC-E252": """A pass refused the module.
The message is the pass's. `neuc passes` says what it expects; --dump-ir DIR shows what it was given.""",
    "NEUC-E253": """The module is on another level than the one asked for.
Levels are graph, paradigm, machine and program, in this order, kept in the module's attribute neuc.level.
Compilation goes on from the level it finds and cannot go back. Which parts run on a machine, and which layers are
quantised, is decided before the paradigm level, and code before the machine level: options that say something else are
refused there. Give them when you compile the model, or its IR of --compile-to graph.""",
    "NEUC-E254": """The module has no function @main.
Execution of a neuc module starts at func.func @main.""",
    "NEUC-E255": """An input or output is not a tensor of numbers.
Sequences, optional values, strings and tensors of unknown rank cannot cross the border of a compiled model.
Change the model so that it takes and gives tensors.""",
    "NEUC-E260": """onnxruntime cannot load or run the model to compare with.
If it fails on made-up inputs, these do not suit the model (an index out of range, say): give real ones with
--input or --calib. Made-up integers lie below 1000, and below the rows of a table that an input picks from by itself;
made-up floats are normal, and masks are ones.""",
    "NEUC-E261": """There is no model to compare with, or it is another one.
Comparing needs the ONNX file that was compiled: `neuc verify model.neuc --against model.onnx`.""",
    "NEUC-E262": """The error budget was missed.
Ternary weights change results. The error is measured on --calib or on made-up inputs: mean cosine error for
outputs that are normalised embeddings, relative L2 otherwise, each output by itself, and the worst counts. Outputs
of integers and booleans are told as the share that is equal, and count only where there are no others (8-bit
integers then as floats). An error of which nothing finite was measured is never within a budget. --verify is held
to --max-error, too, if that is given. More planes, scales per group of 128, a larger budget, or real inputs (models
are often more sensitive to random ones) help. Nothing is written, and the exit code is 4.""",
    "NEUC-E263": """No error can be measured on the calibration data.
An input is empty, or holds NaN or infinity (-inf is fine in an input whose name contains "mask"): what comes of it
equals itself, and says nothing about the compiled model. Remove such rows; `np.isfinite(x).all()` tells.""",
    "NEUC-E300": """The file is not a .neuc artifact, or not a whole one.
It is empty, cut off, or its structure contradicts itself. Copy it again, or compile the model again.""",
    "NEUC-E301": """An artifact's bytes have changed since it was written.
Every part has a hash, which is checked on loading. `neuc verify FILE` lists every damaged part.""",
    "NEUC-E302": """A part of an artifact does not follow its schema.
The program or the manifest is damaged, or was written by something else than neuc.""",
    "NEUC-E303": """A size in an artifact cannot be computed.
Sizes are expressions over the model's symbolic dims. This one is malformed, or divides by zero or overflows for
the sizes fed.""",
    "NEUC-E304": """The artifact has a newer format than this neuc reads.
A neuc reads its own major format version and any minor one up to its own. Update neuc, or compile the model
again.""",
    "NEUC-E305": """The artifact's program needs something the file does not contain, or that does not fit.
A kernel, a weight or a host model is missing or cannot be linked. The file is damaged; compile the model again.""",
    "NEUC-E306": """An artifact or a trace cannot be written.
The folder is missing or not writable, or the disk is full. Nothing half-written is left behind.""",
    "NEUC-E307": """An artifact cannot be read.
It does not exist, or you may not read it. Check the path.""",
    "NEUC-E310": """The feeds do not name the model's inputs.
Every input has to be fed under its own name. `session.get_inputs()` or `neuc inspect FILE` lists them.""",
    "NEUC-E311": """A feed has another element type than the input.
Nothing is converted silently, since that would hide mistakes: use array.astype(...) with the type in the
message.""",
    "NEUC-E312": """A feed has another shape than the input.
Fixed dims must be equal, and dims of the same name must have one size in all inputs of a call.""",
    "NEUC-E313": """The model has no such output.
`session.get_outputs()` or `neuc inspect FILE` lists them; None as output names means all.""",
    "NEUC-E314": """Sizes within the model cannot be computed from these input sizes.
A dim would be negative or would not divide evenly: the model does not accept inputs of these sizes.""",
    "NEUC-E315": """There is not enough memory for the working space of this run.
It grows with the batch and the symbolic sizes. Feed a smaller batch.""",
    "NEUC-E316": """A host segment failed or gave something else than the compiled program expects.
The operators in it run in onnxruntime, whose message follows. `neuc inspect FILE` shows what runs there.""",
    "NEUC-E317": """Nothing installed can run a segment of this kind.
Kinds of segments are provided by executors; this one belongs to a package or a neuc version that is not
installed.""",
    "NEUC-E318": """The session was closed.
After `close()`, or after its with block, a session cannot run. Load the model again.""",
    "NEUC-E319": """A kernel does not compute what it should on this processor.
An artifact holds, for each of its kernels of ternary products, an input with the sums that are right; they are tried
when the model is loaded, so that there are no wrong results. --target cpu-ref compiles to plain code that needs no
special instructions. Please report what `neuc doctor FILE` prints: the processor's name and the kernels that fail.""",
    "NEUC-E320": """The artifact holds no decoder.
Tokens can be generated with artifacts compiled from a GGUF file or a Hugging Face folder of a decoder, whose manifest
describes it and whose program takes tokens, a position and caches. All of the program has to be compiled code: a
decoder compiled for an NPU or a crossbar generates none. Any other artifact runs with `neuc run`.""",
    "NEUC-E321": """Tokens do not fit into the sequence.
A decoder's caches have room for a fixed number of tokens, --context. Prompt and new tokens together must not be more;
nothing is dropped silently. Generate fewer tokens, begin a new sequence, or load with a larger context.""",
    "NEUC-E322": """These are no tokens this decoder can go on with.
Tokens are integers below the size of the vocabulary, and at least one is needed. While a generation is going on,
nothing else may change its sequence.""",
    "NEUC-E323": """A sampling option makes no sense.
temperature and top_k are 0 or more (0: greedy, and all tokens), top_p is above 0 and at most 1, repetition_penalty is
above 0.""",
    "NEUC-E324": """The model's logits are no numbers.
The largest is infinite or NaN, so no token can be chosen. The file is damaged (`neuc verify` tells), or values within
the model are too large for its element types.""",
    "NEUC-E325": """The artifact brings no tokenizer neuc can use.
Text is turned into tokens by the model's own tokenizer, which artifacts carry if the model's file did: a
tokenizer.json, or the metadata of a GGUF file of kind gpt2 (with a way of cutting words that neuc knows) or llama.
Without it give the numbers of tokens.""",
    "NEUC-E326": """An input holds a number that is no row of the table it picks from.
Inputs that go to a Gather as they are (ids of an embedding) lie in -rows … rows - 1, as in ONNX; `neuc inspect FILE`
shows the rows and the node. Kernels, which cannot stop, would take the nearest row. Check the tokenizer or the classes.
Indices that the model computes itself are not looked at: there the nearest row is taken.""",
    "NEUC-E401": """This processor lacks instructions the artifact's code needs.
Code is compiled for the processor it is compiled on unless --cpu says otherwise: avx2 and portable run on more
machines. NEUC_CPU_FEATURES may have taken instructions away.""",
    "NEUC-E402": """The artifact was compiled for another processor architecture.
Machine code for x86-64 does not run on ARM or the other way round. Compile the model on this machine.""",
    "NEUC-E403": """NEUC_CPU_FEATURES cannot be read.
It takes features away: NEUC_CPU_FEATURES=-avx512f,-avx2. Nothing can be added that the processor lacks. `neuc
doctor --json` lists the features here.""",
    "NEUC-E404": """A part of the model runs in onnxruntime, which is not installed.
Install it (pip install onnxruntime), or compile with --fallback error and a target that runs every operator.""",
    "NEUC-E405": """The number of threads makes no sense.
It is at least 1 and at most the limit in the message; left out, it is the number of CPUs this process may use.""",
    "NEUC-E406": """Compiled models do not run on this operating system yet.
Linux on x86-64 is tested. On Windows use WSL; elsewhere compile and run on a Linux machine.""",
    "NEUC-E409": """Memory ran out.
Compiling holds the model's weights a few times over. Close other programs, or use a machine with more memory.""",
    "NEUC-E410": """PyTorch is not installed, and the model is a torch module.
Install it with `pip install 'neuc[torch]'`, or export the module to ONNX where PyTorch is.""",
    "NEUC-E411": """Text needs the package tokenizers, which is not installed.
Install it (pip install "neuc[text]"). Numbers of tokens need no tokenizer: --prompt-tokens.""",
}
