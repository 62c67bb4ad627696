// RUN: not neuc opt %s -p check-dataflow 2>&1 | filecheck %s

// CHECK: NEUC-E678
// CHECK: core-tile: k is on (0, 1), a mem tile
npu.graph @g on "npu-xdna1" {
  npu.kernel @k "copy" [@a] [#npu.numbers<1>] -> [@b] [#npu.numbers<1>] cycles <90> {} {state_bytes = 0 : i64, program_bytes = 2048 : i64, tile = #npu.numbers<0, 1>}
  npu.port @in "in" @a {tile = #npu.numbers<0, 0>}
  npu.port @out "out" @b {tile = #npu.numbers<0, 0>}
  npu.channel @a @in -> [@k] depth 2 "u8" <64>
  npu.channel @b @k -> [@out] depth 2 "u8" <64>
}
