// RUN: neuc opt %s -p fuse-activation --print-debuginfo | filecheck %s

// A bias along the columns, then a ReLU: both join the product.
// CHECK-LABEL: func.func @main
// CHECK: dense.matmul(%x, %w, %{{.*}}) {activation = #dense.activation<relu>} : {{.*}} loc(fused["fc", "add", "act"])
// CHECK-NOT: dense.map

// max(x, 0.5) is no activation.
// CHECK-LABEL: func.func @look_alike
// CHECK: dense.matmul(%x, %w) :
// CHECK: dense.map

builtin.module {
  func.func @main(%x: tensor<2x3xf32>, %w: tensor<3x4xf32>) -> tensor<2x4xf32> {
    %b = store.constant value dense<[1.0, 2.0, 3.0, 4.0]> : tensor<4xf32> : tensor<4xf32>
    %0 = dense.matmul(%x, %w) : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32> loc("fc")
    %1 = dense.map(%0, %b) : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32> {
    ^bb0(%p: f32, %q: f32):
      %s = arith.addf %p, %q : f32
      dense.yield %s : f32
    } loc("add")
    %2 = dense.map(%1) : (tensor<2x4xf32>) -> tensor<2x4xf32> {
    ^bb0(%p: f32):
      %z = arith.constant 0.0 : f32
      %r = arith.maximumf %p, %z : f32
      dense.yield %r : f32
    } loc("act")
    func.return %2 : tensor<2x4xf32>
  }
  func.func @look_alike(%x: tensor<2x3xf32>, %w: tensor<3x4xf32>) -> tensor<2x4xf32> {
    %0 = dense.matmul(%x, %w) : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32>
    %1 = dense.map(%0) : (tensor<2x4xf32>) -> tensor<2x4xf32> {
    ^bb0(%p: f32):
      %z = arith.constant 0.5 : f32
      %r = arith.maximumf %p, %z : f32
      dense.yield %r : f32
    }
    func.return %1 : tensor<2x4xf32>
  }
}
