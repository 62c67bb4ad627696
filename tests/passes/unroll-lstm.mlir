// RUN: neuc opt %s -p unroll-lstm | filecheck %s
// RUN: neuc opt %s -p 'unroll-lstm{steps=1}' | filecheck %s --check-prefix=LOOP

// Both steps read one product with W, and each adds one with R.
// CHECK-LABEL: func.func @main
// CHECK: dense.matmul(%x, {{.*}}) {transpose_b} : (tensor<2x3x2xf32>
// CHECK: dense.slice
// CHECK: dense.matmul({{.*}}) {transpose_b} : (tensor<3x1xf32>, tensor<4x1xf32>) -> tensor<3x4xf32>
// CHECK: math.tanh
// CHECK: dense.matmul({{.*}}) {transpose_b} : (tensor<3x1xf32>, tensor<4x1xf32>) -> tensor<3x4xf32>
// CHECK: dense.concat
// CHECK-NOT: dense.lstm

// LOOP: %[[FED:.*]] = dense.matmul(%x, {{.*}}) {transpose_b} : (tensor<2x3x2xf32>
// LOOP: spike.loop scan(%[[FED]]) {{.*}} steps 2
// LOOP: dense.matmul({{.*}}) {transpose_b} : (tensor<3x1xf32>, tensor<4x1xf32>) -> tensor<3x4xf32>
// LOOP: math.tanh
// LOOP: spike.yield
// LOOP-NOT: dense.lstm
func.func @main(%x: tensor<2x3x2xf32>) -> tensor<2x1x3x1xf32> {
  %w = store.constant value dense<[[[1.0, 2.0], [0.5, 1.0], [2.0, -1.0], [0.25, 0.0]]]> : tensor<1x4x2xf32> : tensor<1x4x2xf32>
  %r = store.constant value dense<[[[1.0], [0.5], [2.0], [0.25]]]> : tensor<1x4x1xf32> : tensor<1x4x1xf32>
  %y, %h, %c = dense.lstm(%x, %w, %r) {hidden = 1} : (tensor<2x3x2xf32>, tensor<1x4x2xf32>, tensor<1x4x1xf32>) -> (tensor<2x1x3x1xf32>, tensor<1x3x1xf32>, tensor<1x3x1xf32>)
  func.return %y : tensor<2x1x3x1xf32>
}
