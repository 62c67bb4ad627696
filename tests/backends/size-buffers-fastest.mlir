// RUN: neuc opt %s -p 'size-buffers{fastest=true}' | filecheck %s

// Two kernels of 40 cycles with one buffer between them take turns; with two they work side by side. @in has four, of
// which it needs fewer.
npu.graph @g on "npu-xdna1" {
  npu.buffer @x "input" "i32" <64>
  npu.buffer @y "output" "i32" <64>
  npu.kernel @first "copy" [@in] [#npu.numbers<1>] -> [@mid] [#npu.numbers<1>] cycles <40> {} {state_bytes = 0 : i64, program_bytes = 0 : i64}
  npu.kernel @second "copy" [@mid] [#npu.numbers<1>] -> [@out] [#npu.numbers<1>] cycles <40> {} {state_bytes = 0 : i64, program_bytes = 0 : i64}
  npu.port @pin "in" @in
  npu.port @pout "out" @out
  // CHECK: npu.channel @in @pin -> [@first] depth 2 "i32" <4>
  npu.channel @in @pin -> [@first] depth 4 "i32" <4>
  // CHECK: npu.channel @mid @first -> [@second] depth 2 "i32" <4>
  npu.channel @mid @first -> [@second] depth 1 "i32" <4>
  npu.channel @out @second -> [@pout] depth 2 "i32" <4>
  npu.sequence {
    npu.transfer @pin @x 0 sizes <64> strides <1>
    npu.transfer @pout @y 0 sizes <64> strides <1>
    npu.wait @pout
  }
}
