"""CPU targets: kernels generated as llvm-dialect functions, scheduled over planned buffers.

`target` describes the targets, `lowering` turns segments into `cpu.program`s, `plan_memory` places their buffers and
`emit` makes the program the runtime executes. Nothing here runs code.
"""
