// RUN: neuc opt %s -p bf16-products | filecheck %s

// Scale, bias and activation become maps behind the product; attention's second operand may be transposed.
// CHECK-LABEL: func.func @main
// CHECK: %[[P:[0-9a-z_]+]] = npu.matmul %x, %w : (tensor<2x8xf32>, tensor<8x4xf32>) -> tensor<2x4xf32>
// CHECK-NEXT: %[[S:[0-9a-z_]+]] = dense.map(%[[P]], %b)
// CHECK: dense.map(%[[S]])
// CHECK: npu.matmul %q, %k {transpose_b} : (tensor<3x5x8xf32>, tensor<3x6x8xf32>) -> tensor<3x5x6xf32>
// Leading axes of their own are broadcast: that stays.
// CHECK: dense.matmul(%q, %c)
func.func @main(%x: tensor<2x8xf32>, %w: tensor<8x4xf32>, %b: tensor<4xf32>, %q: tensor<3x5x8xf32>, %k: tensor<3x6x8xf32>, %c: tensor<1x8x6xf32>) -> (tensor<2x4xf32>, tensor<3x5x6xf32>, tensor<3x5x6xf32>) {
  %y = dense.matmul(%x, %w, %b) {activation = #dense.activation<relu>} : (tensor<2x8xf32>, tensor<8x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %s = dense.matmul(%q, %k) {alpha = 0.5, transpose_b} : (tensor<3x5x8xf32>, tensor<3x6x8xf32>) -> tensor<3x5x6xf32>
  %r = dense.matmul(%q, %c) : (tensor<3x5x8xf32>, tensor<1x8x6xf32>) -> tensor<3x5x6xf32>
  func.return %y, %s, %r : tensor<2x4xf32>, tensor<3x5x6xf32>, tensor<3x5x6xf32>
}

// A convolution is windows times a matrix, its bias behind it; two groups' weights stand along a diagonal.
// CHECK-LABEL: func.func @conv
// CHECK: %[[W:[0-9a-z_]+]] = npu.windows %x kernel [2, 2] strides [1, 1] pads [1, 0, 0, 0] dilations [1, 1] groups 1
// CHECK-NEXT: npu.matmul %[[W]], %{{[0-9a-z_]+}} {transpose_b} : (tensor<1x6x8xf32>, tensor<2x8xf32>) -> tensor<1x6x2xf32>
// CHECK-NEXT: dense.map
// CHECK: dense.transpose
// CHECK: dense.reshape
func.func @conv(%x: tensor<1x2x3x3xf32>, %b: tensor<2xf32>) -> tensor<1x2x3x2xf32> {
  %w = store.constant value dense<[[[[1.0, 2.0], [3.0, 4.0]]], [[[5.0, 6.0], [7.0, 8.0]]]]> : tensor<2x1x2x2xf32> : tensor<2x1x2x2xf32>
  %y = dense.conv(%x, %w, %b) {strides = [1, 1], pads = [1, 0, 0, 0], dilations = [1, 1], group = 2} : (tensor<1x2x3x3xf32>, tensor<2x1x2x2xf32>, tensor<2xf32>) -> tensor<1x2x3x2xf32>
  func.return %y : tensor<1x2x3x2xf32>
}
