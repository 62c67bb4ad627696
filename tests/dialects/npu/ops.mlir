// RUN: neuc opt %s | filecheck %s
// RUN: neuc opt %s | neuc opt - | filecheck %s

// CHECK: npu.graph @g on "npu-xdna1"
npu.graph @g on "npu-xdna1" {
  // CHECK: npu.buffer @x "input" "u8" <2, 64>
  npu.buffer @x "input" "u8" <2, 64>
  npu.buffer @y "output" "u8" <2, 64>
  // CHECK: npu.kernel @k "threshold" [@a] [#npu.numbers<1>] -> [@b] [#npu.numbers<1>] cycles <90>
  // CHECK-SAME: tile = #npu.numbers<0, 2>
  npu.kernel @k "threshold" [@a] [#npu.numbers<1>] -> [@b] [#npu.numbers<1>] cycles <90> {max = 255 : i64, kind = 0 : i64} {state_bytes = 0 : i64, program_bytes = 2048 : i64, tile = #npu.numbers<0, 2>, pinned}
  // CHECK: npu.link @l "split" [@b] -> [@c, @d] <0, 32> repeat 1 depth 2
  npu.link @l "split" [@b] -> [@c, @d] <0, 32> repeat 1 depth 2
  npu.link @j "join" [@c, @d] -> [@e] <0, 32> repeat 1 depth 2
  npu.port @in "in" @a
  npu.port @out "out" @e
  npu.channel @a @in -> [@k] depth 2 "u8" <64>
  npu.channel @b @k -> [@l] depth 2 "u8" <64>
  npu.channel @c @l -> [@j] depth 2 "u8" <32>
  npu.channel @d @l -> [@j] depth 2 "u8" <32>
  npu.channel @e @j -> [@out] depth 2 "u8" <64>
  // CHECK: npu.param @threshold of @k = 100
  npu.param @threshold of @k = 100
  // CHECK: npu.sequence {
  npu.sequence {
    npu.set_param @threshold = 50
    // CHECK: npu.transfer @in @x 0 sizes <128> strides <1>
    npu.transfer @in @x 0 sizes <128> strides <1>
    npu.transfer @out @y 0 sizes <128> strides <1>
    npu.wait @out
  }
}
func.func @main(%x: tensor<2x64xui8>) -> tensor<2x64xui8> {
  // CHECK: npu.run @g
  %y = npu.run @g(%x) : (tensor<2x64xui8>) -> tensor<2x64xui8>
  func.return %y : tensor<2x64xui8>
}
func.func @products(%a: tensor<2x5x8xf32>, %b: tensor<2x6x8xf32>, %w: tensor<8x3xf32>) -> (tensor<2x5x6xf32>, tensor<2x5x3xf32>) {
  // CHECK: npu.matmul %a, %b {transpose_b} : (tensor<2x5x8xf32>, tensor<2x6x8xf32>) -> tensor<2x5x6xf32>
  %y = npu.matmul %a, %b {transpose_b} : (tensor<2x5x8xf32>, tensor<2x6x8xf32>) -> tensor<2x5x6xf32>
  // CHECK: npu.matmul %a, %w : (tensor<2x5x8xf32>, tensor<8x3xf32>) -> tensor<2x5x3xf32>
  %z = npu.matmul %a, %w : (tensor<2x5x8xf32>, tensor<8x3xf32>) -> tensor<2x5x3xf32>
  func.return %y, %z : tensor<2x5x6xf32>, tensor<2x5x3xf32>
}
func.func @windows(%x: tensor<2x6x9x5xf32>) -> tensor<2x30x36xf32> {
  // CHECK: npu.windows %x kernel [3, 2] strides [2, 1] pads [1, 1, 1, 1] dilations [1, 1] groups 3 : tensor<2x6x9x5xf32> -> tensor<2x30x36xf32>
  %w = npu.windows %x kernel [3, 2] strides [2, 1] pads [1, 1, 1, 1] dilations [1, 1] groups 3 : tensor<2x6x9x5xf32> -> tensor<2x30x36xf32>
  func.return %w : tensor<2x30x36xf32>
}
func.func @grouped(%q: tensor<2x5x72xi8>, %p: !ternary.packed<#ternary.encoding<i2>, 8x9, scale = row, planes = 1>) -> tensor<2x5x1x8xi32> {
  // CHECK: npu.grouped_accumulate %q, %p groups 8 : (tensor<2x5x72xi8>, {{.*}}) -> tensor<2x5x1x8xi32>
  %y = npu.grouped_accumulate %q, %p groups 8 : (tensor<2x5x72xi8>, !ternary.packed<#ternary.encoding<i2>, 8x9, scale = row, planes = 1>) -> tensor<2x5x1x8xi32>
  func.return %y : tensor<2x5x1x8xi32>
}
func.func @finished(%a: tensor<2x1x3xi32>, %m: tensor<3xi32>, %o: tensor<3xi64>, %l: tensor<3x4xi8>, %e: tensor<3x2x2xi32>, %t: tensor<256xi8>) -> tensor<2x3xi8> {
  // CHECK: npu.requantize %a, %m, %o, %l, %e table %t : (tensor<2x1x3xi32>, tensor<3xi32>, tensor<3xi64>, tensor<3x4xi8>, tensor<3x2x2xi32>, tensor<256xi8>) -> tensor<2x3xi8>
  %y = npu.requantize %a, %m, %o, %l, %e table %t : (tensor<2x1x3xi32>, tensor<3xi32>, tensor<3xi64>, tensor<3x4xi8>, tensor<3x2x2xi32>, tensor<256xi8>) -> tensor<2x3xi8>
  // CHECK: npu.requantize %y, %m, %o, %l, %e : (tensor<2x3xi8>, tensor<3xi32>, tensor<3xi64>, tensor<3x4xi8>, tensor<3x2x2xi32>) -> tensor<2x3xi8>
  %z = npu.requantize %y, %m, %o, %l, %e : (tensor<2x3xi8>, tensor<3xi32>, tensor<3xi64>, tensor<3x4xi8>, tensor<3x2x2xi32>) -> tensor<2x3xi8>
  func.return %z : tensor<2x3xi8>
}
func.func @added(%a: tensor<2x3xi8>, %b: tensor<2x3xi8>, %m: tensor<2xi32>, %o: tensor<1xi64>, %l: tensor<4xi8>, %e: tensor<5x3xi32>, %t: tensor<256xi8>) -> tensor<2x3xi8> {
  // CHECK: npu.add_codes %a, %b, %m, %o, %l, %e : (tensor<2x3xi8>, tensor<2x3xi8>, tensor<2xi32>, tensor<1xi64>, tensor<4xi8>, tensor<5x3xi32>) -> tensor<2x3xi8>
  %y = npu.add_codes %a, %b, %m, %o, %l, %e : (tensor<2x3xi8>, tensor<2x3xi8>, tensor<2xi32>, tensor<1xi64>, tensor<4xi8>, tensor<5x3xi32>) -> tensor<2x3xi8>
  // CHECK: npu.add_codes %y, %b, %m, %o, %l, %e table %t : (tensor<2x3xi8>, tensor<2x3xi8>, tensor<2xi32>, tensor<1xi64>, tensor<4xi8>, tensor<5x3xi32>, tensor<256xi8>) -> tensor<2x3xi8>
  %z = npu.add_codes %y, %b, %m, %o, %l, %e table %t : (tensor<2x3xi8>, tensor<2x3xi8>, tensor<2xi32>, tensor<1xi64>, tensor<4xi8>, tensor<5x3xi32>, tensor<256xi8>) -> tensor<2x3xi8>
  func.return %z : tensor<2x3xi8>
}

// CHECK-LABEL: func.func @rows
func.func @rows(%x: tensor<2x5x8xf32>, %b: tensor<8xf32>, %t: tensor<514xi32>) -> (tensor<2x5x8xf32>, tensor<2x5x8xf32>) {
  // CHECK: npu.chain(%x, %b : tensor<2x5x8xf32>, tensor<8xf32>) tables(%t : tensor<514xi32>) {steps = ["add 0 1", "curve 2 0"]} : tensor<2x5x8xf32>
  %c = npu.chain(%x, %b : tensor<2x5x8xf32>, tensor<8xf32>) tables(%t : tensor<514xi32>) {steps = ["add 0 1", "curve 2 0"]} : tensor<2x5x8xf32>
  // CHECK: npu.chain(%x : tensor<2x5x8xf32>) {steps = ["constant 0.5", "mul 0 1"]} : tensor<2x5x8xf32>
  %d = npu.chain(%x : tensor<2x5x8xf32>) {steps = ["constant 0.5", "mul 0 1"]} : tensor<2x5x8xf32>
  // CHECK: npu.softmax %c table %t : (tensor<2x5x8xf32>, tensor<514xi32>) -> tensor<2x5x8xf32>
  %s = npu.softmax %c table %t : (tensor<2x5x8xf32>, tensor<514xi32>) -> tensor<2x5x8xf32>
  // CHECK: npu.layer_norm %d scale %b : tensor<8xf32> bias %b : tensor<8xf32> {eps = 1.000000e-05 : f32, rms} : tensor<2x5x8xf32> -> tensor<2x5x8xf32>
  %n = npu.layer_norm %d scale %b : tensor<8xf32> bias %b : tensor<8xf32> {eps = 1.0e-5 : f32, rms} : tensor<2x5x8xf32> -> tensor<2x5x8xf32>
  func.return %s, %n : tensor<2x5x8xf32>, tensor<2x5x8xf32>
}
