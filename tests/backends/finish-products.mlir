// RUN: neuc opt %s -p 'recognize-ternary{min_k=4},tile-lut{encoding=i2},finish-products' | filecheck %s

// Scales, bias, ReLU, rounding and zero point become integers; movements follow on codes, then what is done with them.
// CHECK-LABEL: func.func @main
// CHECK: %[[A:[0-9a-z_]+]] = ternary.accumulate
// CHECK: %[[R:[0-9a-z_]+]] = npu.requantize %[[A]], {{.*}} -> tensor<5x3xi8>
// CHECK: %[[T:[0-9a-z_]+]] = dense.transpose(%[[R]]) {perm = [1, 0]} : (tensor<5x3xi8>) -> tensor<3x5xi8>
// CHECK: dense.map(%[[T]]) : (tensor<3x5xi8>) -> tensor<3x5xf32>
// CHECK-NOT: ternary.dequantize
// A second reader of the floats leaves the sums to the CPU, which is said.
// CHECK: ternary.accumulate {{.*}}npu.unfinished = "its results are no int8 codes"
// CHECK: ternary.dequantize
func.func @main(%x: tensor<5x4xf32>) -> (tensor<3x5xf32>, tensor<5x3xi8>, tensor<5x3xf32>) {
  %b = store.constant value dense<[1.0, -2.0, 3.0]> : tensor<3xf32> : tensor<3xf32>
  %w = store.constant value dense<[[0.5, 0.0, -0.5], [0.5, 0.5, 0.0], [0.0, -0.5, -0.5], [-0.5, 0.5, 0.5]]> : tensor<4x3xf32> : tensor<4x3xf32>
  %w2 = store.constant value dense<[[0.5, 0.0, -0.5], [0.5, 0.5, 0.0], [0.0, 0.5, -0.5], [-0.5, 0.5, 0.5]]> : tensor<4x3xf32> : tensor<4x3xf32>
  %f = dense.map(%x) : (tensor<5x4xf32>) -> tensor<5x4xf32> {
  ^bb0(%e: f32):
    %step = arith.constant 0.02 : f32
    %low = arith.constant -128.0 : f32
    %high = arith.constant 127.0 : f32
    %n = arith.divf %e, %step : f32
    %near = math.roundeven %n : f32
    %u = arith.maximumf %near, %low : f32
    %c = arith.minimumf %u, %high : f32
    %d = arith.mulf %c, %step : f32
    dense.yield %d : f32
  }
  %y = dense.matmul(%f, %w, %b) {activation = #dense.activation<relu>} : (tensor<5x4xf32>, tensor<4x3xf32>, tensor<3xf32>) -> tensor<5x3xf32>
  %t = dense.transpose(%y) {perm = [1, 0]} : (tensor<5x3xf32>) -> tensor<3x5xf32>
  %r = dense.map(%t) : (tensor<3x5xf32>) -> tensor<3x5xf32> {
  ^bb0(%e: f32):
    %step = arith.constant 0.3 : f32
    %low = arith.constant -128.0 : f32
    %high = arith.constant 127.0 : f32
    %n = arith.divf %e, %step : f32
    %near = math.roundeven %n : f32
    %u = arith.maximumf %near, %low : f32
    %v = arith.minimumf %u, %high : f32
    %c = arith.fptosi %v : f32 to i8
    %g = arith.sitofp %c : i8 to f32
    %d = arith.mulf %g, %step : f32
    dense.yield %d : f32
  }
  %z = dense.matmul(%f, %w2) : (tensor<5x4xf32>, tensor<4x3xf32>) -> tensor<5x3xf32>
  %q = dense.map(%z) : (tensor<5x3xf32>) -> tensor<5x3xi8> {
  ^bb0(%e: f32):
    %near = math.roundeven %e : f32
    %c = arith.fptosi %near : f32 to i8
    dense.yield %c : i8
  }
  func.return %r, %q, %z : tensor<3x5xf32>, tensor<5x3xi8>, tensor<5x3xf32>
}
