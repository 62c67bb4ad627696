// RUN: neuc opt %s -p 'size-buffers,place-dataflow,assign-dataflow,route-dataflow,check-dataflow' | filecheck %s

// CHECK: npu.graph @g on "npu-xdna1-1col"
npu.graph @g on "npu-xdna1-1col" {
  npu.buffer @x "input" "u8" <2, 64>
  npu.buffer @y "output" "u8" <2, 64>
  // CHECK: npu.kernel @k "copy"
  // CHECK-SAME: tile = #npu.numbers<0, 2>
  npu.kernel @k "copy" [@a] [#npu.numbers<1>] -> [@b] [#npu.numbers<1>] cycles <90> {} {state_bytes = 0 : i64, program_bytes = 2048 : i64}
  // CHECK: npu.port @in "in" @a {tile = #npu.numbers<0, 0>}
  npu.port @in "in" @a
  npu.port @out "out" @b
  // CHECK: npu.channel @a @in -> [@k] depth 2 "u8" <64> {pools = [#npu.pool<"a@k", #npu.numbers<0, 2>, 64 : i64
  // CHECK-SAME: dmas = [#npu.dma<"in", #npu.numbers<0, 0>, "mm2s", 0 : i64, #npu.numbers<0>>
  // CHECK-SAME: route = [#npu.circuit<#npu.numbers<0, 0>, "DMA", 0 : i64, "North", 0 : i64>
  npu.channel @a @in -> [@k] depth 2 "u8" <64>
  npu.channel @b @k -> [@out] depth 2 "u8" <64>
  npu.sequence {
    npu.transfer @in @x 0 sizes <128> strides <1>
    npu.transfer @out @y 0 sizes <128> strides <1>
    npu.wait @out
  }
}
