// RUN: neuc opt %s -p expand-activations | filecheck %s

// An activation of a product is a map of its own.
// CHECK-LABEL: func.func @fused
// CHECK: %[[P:.*]] = dense.matmul(%x, %w) : {{.*}}
// CHECK: dense.map(%[[P]])
// CHECK: arith.maximumf
// CHECK: func.return

// A ReLU within a larger map is taken out of it.
// CHECK-LABEL: func.func @inside
// CHECK: %[[SUM:.*]] = dense.map(%x, %y)
// CHECK: arith.addf
// CHECK: %[[RELU:.*]] = dense.map(%[[SUM]])
// CHECK: arith.maximumf
// CHECK: dense.map(%y, %[[RELU]])
// CHECK: arith.mulf

// LeakyReLU is two ReLUs.
// CHECK-LABEL: func.func @leaky
// CHECK: %[[UP:.*]] = dense.map(%x)
// CHECK: arith.maximumf
// CHECK: %[[NEG:.*]] = dense.map(%x)
// CHECK: arith.negf
// CHECK: %[[DOWN:.*]] = dense.map(%[[NEG]])
// CHECK: arith.maximumf
// CHECK: dense.map(%[[UP]], %[[DOWN]])
// CHECK: arith.subf

// A clip begins at 0, between shifts.
// CHECK-LABEL: func.func @clip
// CHECK: %[[SHIFTED:.*]] = dense.map(%x)
// CHECK: arith.subf
// CHECK: %[[CLIPPED:.*]] = dense.map(%[[SHIFTED]])
// CHECK: arith.constant 0.000000e+00
// CHECK: arith.maximumf
// CHECK: arith.constant 3.000000e+00
// CHECK: arith.minimumf
// CHECK: dense.map(%[[CLIPPED]])
// CHECK: arith.addf

builtin.module {
  func.func @fused(%x: tensor<2x3xf32>, %w: tensor<3x4xf32>) -> tensor<2x4xf32> {
    %0 = dense.matmul(%x, %w) {activation = #dense.activation<relu>} : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32>
    func.return %0 : tensor<2x4xf32>
  }
  func.func @inside(%x: tensor<4xf32>, %y: tensor<4xf32>) -> tensor<4xf32> {
    %0 = dense.map(%x, %y) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> {
    ^bb0(%a: f32, %b: f32):
      %z = arith.constant 0.0 : f32
      %s = arith.addf %a, %b : f32
      %r = arith.maximumf %s, %z : f32
      %m = arith.mulf %r, %b : f32
      dense.yield %m : f32
    }
    func.return %0 : tensor<4xf32>
  }
  func.func @leaky(%x: tensor<4xf32>) -> tensor<4xf32> {
    %0 = dense.map(%x) : (tensor<4xf32>) -> tensor<4xf32> {
    ^bb0(%a: f32):
      %z = arith.constant 0.0 : f32
      %c = arith.constant 0.25 : f32
      %l = arith.cmpf olt, %a, %z : f32
      %m = arith.mulf %a, %c : f32
      %s = arith.select %l, %m, %a : f32
      dense.yield %s : f32
    }
    func.return %0 : tensor<4xf32>
  }
  func.func @clip(%x: tensor<4xf32>) -> tensor<4xf32> {
    %0 = dense.map(%x) : (tensor<4xf32>) -> tensor<4xf32> {
    ^bb0(%a: f32):
      %lo = arith.constant -1.0 : f32
      %hi = arith.constant 2.0 : f32
      %m = arith.maximumf %a, %lo : f32
      %n = arith.minimumf %m, %hi : f32
      dense.yield %n : f32
    }
    func.return %0 : tensor<4xf32>
  }
}
