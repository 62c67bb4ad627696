// RUN: neuc opt %s --split-input-file --verify-diagnostics | filecheck %s

// CHECK: dangling port: k names channel @b, which does not exist
npu.graph @g on "npu-xdna1" {
  npu.kernel @k "copy" [@a] [#npu.numbers<1>] -> [@b] [#npu.numbers<1>] cycles <9> {} {state_bytes = 0 : i64, program_bytes = 0 : i64}
  npu.port @in "in" @a
  npu.channel @a @in -> [@k] depth 2 "u8" <64>
}

// -----

// CHECK: impossible rate [0] on @a
npu.graph @g on "npu-xdna1" {
  npu.kernel @k "copy" [@a] [#npu.numbers<0>] -> [] [] cycles <9> {} {state_bytes = 0 : i64, program_bytes = 0 : i64}
  npu.port @in "in" @a
  npu.channel @a @in -> [@k] depth 2 "u8" <64>
}

// -----

// CHECK: impossible rates: channel c never balances
npu.graph @g on "npu-xdna1" {
  npu.kernel @k "copy" [@a] [#npu.numbers<1>] -> [@b, @c] [#npu.numbers<1>, #npu.numbers<2>] cycles <9> {} {state_bytes = 0 : i64, program_bytes = 0 : i64}
  npu.kernel @m "add" [@b, @c] [#npu.numbers<1>, #npu.numbers<1>] -> [] [] cycles <9> {} {state_bytes = 0 : i64, program_bytes = 0 : i64}
  npu.port @in "in" @a
  npu.channel @a @in -> [@k] depth 2 "u8" <64>
  npu.channel @b @k -> [@m] depth 2 "u8" <64>
  npu.channel @c @k -> [@m] depth 2 "u8" <64>
}

// -----

// CHECK: link l: parts of [32, 32] bytes at [0, 40] do not fit 64 bytes
npu.graph @g on "npu-xdna1" {
  npu.link @l "split" [@a] -> [@c, @d] <0, 40> repeat 1 depth 2
  npu.port @in "in" @a
  npu.port @o1 "out" @c
  npu.port @o2 "out" @d
  npu.channel @a @in -> [@l] depth 2 "u8" <64>
  npu.channel @c @l -> [@o1] depth 2 "u8" <32>
  npu.channel @d @l -> [@o2] depth 2 "u8" <32>
}

// -----

// CHECK: channel a has depth 0
npu.graph @g on "npu-xdna1" {
  npu.port @in "in" @a
  npu.port @out "out" @a
  npu.channel @a @in -> [@out] depth 0 "u8" <64>
}

// -----

// CHECK: a transfer on in reaches outside x: 0 to 128
npu.graph @g on "npu-xdna1" {
  npu.buffer @x "input" "u8" <2, 64>
  npu.port @in "in" @a
  npu.port @out "out" @a
  npu.channel @a @in -> [@out] depth 2 "u8" <64>
  npu.sequence {
    npu.transfer @in @x 0 sizes <129> strides <1>
  }
}

// -----

// CHECK: in is pinned to no tile
npu.graph @g on "npu-xdna1" {
  npu.port @in "in" @a {pinned}
  npu.port @out "out" @a
  npu.channel @a @in -> [@out] depth 2 "u8" <64>
}

// -----

// CHECK: a has K = 8 columns but b has K = 6 rows
func.func @products(%a: tensor<2x5x8xf32>, %b: tensor<6x3xf32>) -> tensor<2x5x3xf32> {
  %y = npu.matmul %a, %b : (tensor<2x5x8xf32>, tensor<6x3xf32>) -> tensor<2x5x3xf32>
  func.return %y : tensor<2x5x3xf32>
}

// -----

// CHECK: leading axes of b
func.func @products(%a: tensor<2x5x8xf32>, %b: tensor<3x8x3xf32>) -> tensor<2x5x3xf32> {
  %y = npu.matmul %a, %b : (tensor<2x5x8xf32>, tensor<3x8x3xf32>) -> tensor<2x5x3xf32>
  func.return %y : tensor<2x5x3xf32>
}

// -----

// CHECK: addend has shape
func.func @finished(%a: tensor<2x1x3xi32>, %m: tensor<3xi32>, %o: tensor<4xi64>, %l: tensor<3x4xi8>, %e: tensor<3x2x2xi32>) -> tensor<2x3xi8> {
  %y = npu.requantize %a, %m, %o, %l, %e : (tensor<2x1x3xi32>, tensor<3xi32>, tensor<4xi64>, tensor<3x4xi8>, tensor<3x2x2xi32>) -> tensor<2x3xi8>
  func.return %y : tensor<2x3xi8>
}

// -----

// CHECK: acc has shape
func.func @finished(%a: tensor<2x2x3xi32>, %m: tensor<3xi32>, %o: tensor<3xi64>, %l: tensor<3x4xi8>, %e: tensor<3x2x2xi32>) -> tensor<2x3xi8> {
  %y = npu.requantize %a, %m, %o, %l, %e : (tensor<2x2x3xi32>, tensor<3xi32>, tensor<3xi64>, tensor<3x4xi8>, tensor<3x2x2xi32>) -> tensor<2x3xi8>
  func.return %y : tensor<2x3xi8>
}

// -----

// CHECK: other has shape
func.func @added(%a: tensor<2x3xi8>, %b: tensor<2x4xi8>, %m: tensor<2xi32>, %o: tensor<1xi64>, %l: tensor<4xi8>, %e: tensor<5x3xi32>) -> tensor<2x3xi8> {
  %y = npu.add_codes %a, %b, %m, %o, %l, %e : (tensor<2x3xi8>, tensor<2x4xi8>, tensor<2xi32>, tensor<1xi64>, tensor<4xi8>, tensor<5x3xi32>) -> tensor<2x3xi8>
  func.return %y : tensor<2x3xi8>
}

// -----

// CHECK: 8 rows cannot be cut into 3 groups
func.func @grouped(%q: tensor<2x27xi8>, %p: !ternary.packed<#ternary.encoding<i2>, 8x9, scale = row, planes = 1>) -> tensor<2x1x8xi32> {
  %y = npu.grouped_accumulate %q, %p groups 3 : (tensor<2x27xi8>, !ternary.packed<#ternary.encoding<i2>, 8x9, scale = row, planes = 1>) -> tensor<2x1x8xi32>
  func.return %y : tensor<2x1x8xi32>
}

// -----

func.func @chain(%x: tensor<2x8xf32>) -> tensor<2x8xf32> {
  // CHECK: step 1 (mul 0 2) reads a value that is not there yet
  %y = npu.chain(%x : tensor<2x8xf32>) {steps = ["constant 0.5", "mul 0 2"]} : tensor<2x8xf32>
  func.return %y : tensor<2x8xf32>
}

// -----

func.func @words(%x: tensor<2x8xf32>) -> tensor<2x8xf32> {
  // CHECK: 'divide 0 0' is no step of a chain
  %y = npu.chain(%x : tensor<2x8xf32>) {steps = ["divide 0 0"]} : tensor<2x8xf32>
  func.return %y : tensor<2x8xf32>
}

// -----

func.func @tables(%x: tensor<2x8xf32>, %t: tensor<512xi32>) -> tensor<2x8xf32> {
  // CHECK: table is no i32 vector of 512 words and two for each segment
  %y = npu.softmax %x table %t : (tensor<2x8xf32>, tensor<512xi32>) -> tensor<2x8xf32>
  func.return %y : tensor<2x8xf32>
}

// -----

func.func @groups(%a: tensor<2x6xf32>, %b: tensor<2x3x4xf32>) -> tensor<2x12xf32> {
  // CHECK: groups = 3 needs as many matrices b
  %y = npu.matmul %a, %b {groups = 3 : i64} : (tensor<2x6xf32>, tensor<2x3x4xf32>) -> tensor<2x12xf32>
  func.return %y : tensor<2x12xf32>
}

// -----

func.func @windows(%x: tensor<1x5x4x4xf32>) -> tensor<1x16x5xf32> {
  // CHECK: 5 channels cannot be cut into 2 groups
  %w = npu.windows %x kernel [1, 1] strides [1, 1] pads [0, 0, 0, 0] dilations [1, 1] groups 2 : tensor<1x5x4x4xf32> -> tensor<1x16x5xf32>
  func.return %w : tensor<1x16x5xf32>
}
