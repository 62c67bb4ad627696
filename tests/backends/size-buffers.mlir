// RUN: neuc opt %s -p size-buffers | filecheck %s

// The join takes two tokens of @b before it takes any of @a: @a needs room for what comes with them.
npu.graph @g on "npu-xdna1" {
  npu.buffer @x "input" "i32" <32>
  npu.buffer @y "output" "i32" <32>
  npu.kernel @fork "copy" [@in] [#npu.numbers<1>] -> [@a, @b] [#npu.numbers<1>, #npu.numbers<1>] cycles <9> {} {state_bytes = 0 : i64, program_bytes = 0 : i64}
  npu.kernel @join "copy" [@b, @a] [#npu.numbers<4, 0>, #npu.numbers<0, 4>] -> [@out] [#npu.numbers<0, 4>] cycles <9, 9> {} {state_bytes = 0 : i64, program_bytes = 0 : i64}
  npu.port @pin "in" @in
  npu.port @pout "out" @out
  npu.channel @in @pin -> [@fork] depth 2 "i32" <4>
  // CHECK: npu.channel @a @fork -> [@join] depth {{[2-9]}} "i32" <4>
  npu.channel @a @fork -> [@join] depth 1 "i32" <4>
  // CHECK: npu.channel @b @fork -> [@join] depth 4 "i32" <4>
  npu.channel @b @fork -> [@join] depth 4 "i32" <4>
  // CHECK: npu.channel @out @join -> [@pout] depth 4 "i32" <4>
  npu.channel @out @join -> [@pout] depth 4 "i32" <4>
  npu.sequence {
    npu.transfer @pin @x 0 sizes <32> strides <1>
    npu.transfer @pout @y 0 sizes <32> strides <1>
    npu.wait @pout
  }
}
