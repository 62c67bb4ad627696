// RUN: neuc opt %s --split-input-file -p 'finish-floats{mode=always},bf16-rows{mode=always},narrow-results' | filecheck %s
// RUN: neuc opt %s --split-input-file -p 'hoist-maps,fuse-maps,finish-floats{mode=always}' | filecheck %s --check-prefix=HOIST

// A bias and a function of one value follow on the core; what only products read leaves as bf16.
// CHECK-LABEL: func.func @main
// CHECK: %[[P:.*]] = npu.matmul %x, %w
// CHECK: %[[F:.*]] = npu.finish %[[P]] shift %{{.*}} : tensor<4xf32> table %{{.*}} {narrow} : tensor<2x4xf32> -> tensor<2x4xf32>
// CHECK: %[[Q:.*]] = npu.matmul %[[F]], %v
// A scale and limits are exact.
// CHECK: %[[C:.*]] = npu.finish %[[Q]] scale %{{.*}} {low = 0.000000e+00 : f32, high = 6.000000e+00 : f32, narrow}
// CHECK: npu.softmax %[[C]]
// A vector known at run time, where the product is of activations; another tensor stays, as a chain.
// CHECK: %[[S:.*]] = npu.matmul %q, %k {transpose_b}
// CHECK: %[[T:.*]] = npu.finish %[[S]] scale %{{.*}} : tensor<1xf32> shift %m : tensor<1x1x6xf32> {narrow}
// CHECK: npu.chain(%r, %[[T]]
// CHECK-SAME: steps = ["add 1 0"]
func.func @main(%x: tensor<2x8xf32>, %q: tensor<3x5x8xf32>, %k: tensor<3x6x8xf32>, %m: tensor<1x1x6xf32>, %r: tensor<3x5x6xf32>) -> (tensor<2x4xf32>, tensor<3x5x6xf32>) {
  %w = store.constant value dense<0.5> : tensor<8x4xf32> : tensor<8x4xf32>
  %v = store.constant value dense<0.25> : tensor<4x4xf32> : tensor<4x4xf32>
  %b = store.constant value dense<[1.0, 2.0, 3.0, 4.0]> : tensor<4xf32> : tensor<4xf32>
  %p = npu.matmul %x, %w : (tensor<2x8xf32>, tensor<8x4xf32>) -> tensor<2x4xf32>
  %y = dense.map(%p, %b) : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32> {
  ^bb0(%a: f32, %c: f32):
    %s = arith.addf %a, %c : f32
    %t = math.tanh %s : f32
    dense.yield %t : f32
  }
  %d = npu.matmul %y, %v : (tensor<2x4xf32>, tensor<4x4xf32>) -> tensor<2x4xf32>
  %e = dense.map(%d) : (tensor<2x4xf32>) -> tensor<2x4xf32> {
  ^bb0(%a: f32):
    %n = arith.constant 0.3 : f32
    %s = arith.mulf %a, %n : f32
    %o = arith.constant 0.0 : f32
    %t = arith.maximumf %s, %o : f32
    %i = arith.constant 6.0 : f32
    %u = arith.minimumf %t, %i : f32
    dense.yield %u : f32
  }
  %z = dense.softmax(%e) {axis = 1} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %g = npu.matmul %q, %k {transpose_b} : (tensor<3x5x8xf32>, tensor<3x6x8xf32>) -> tensor<3x5x6xf32>
  %h = dense.map(%g, %m, %r) : (tensor<3x5x6xf32>, tensor<1x1x6xf32>, tensor<3x5x6xf32>) -> tensor<3x5x6xf32> {
  ^bb0(%a: f32, %c: f32, %f: f32):
    %n = arith.constant 0.25 : f32
    %s = arith.mulf %a, %n : f32
    %t = arith.addf %s, %c : f32
    %u = arith.addf %t, %f : f32
    dense.yield %u : f32
  }
  func.return %z, %h : tensor<2x4xf32>, tensor<3x5x6xf32>
}

// -----

// The activation stands before the product's elements are moved, with the bias.
// HOIST-LABEL: func.func @main(%x: tensor<1x6x8xf32>)
// HOIST: %[[P:.*]] = npu.matmul
// HOIST: %[[F:.*]] = npu.finish %[[P]] shift %{{.*}} : tensor<2xf32> {low = 0.000000e+00 : f32}
// HOIST-NEXT: dense.transpose(%[[F]])
// HOIST-NEXT: func.return
func.func @main(%x: tensor<1x6x8xf32>) -> tensor<1x2x6xf32> {
  %w = store.constant value dense<0.5> : tensor<8x2xf32> : tensor<8x2xf32>
  %b = store.constant value dense<[1.0, 2.0]> : tensor<2xf32> : tensor<2xf32>
  %p = npu.matmul %x, %w : (tensor<1x6x8xf32>, tensor<8x2xf32>) -> tensor<1x6x2xf32>
  %y = dense.map(%p, %b) : (tensor<1x6x2xf32>, tensor<2xf32>) -> tensor<1x6x2xf32> {
  ^bb0(%a: f32, %c: f32):
    %s = arith.addf %a, %c : f32
    dense.yield %s : f32
  }
  %t = dense.transpose(%y) {perm = [0, 2, 1]} : (tensor<1x6x2xf32>) -> tensor<1x2x6xf32>
  %r = dense.map(%t) : (tensor<1x2x6xf32>) -> tensor<1x2x6xf32> {
  ^bb0(%a: f32):
    %o = arith.constant 0.0 : f32
    %s = arith.maximumf %a, %o : f32
    dense.yield %s : f32
  }
  func.return %r : tensor<1x2x6xf32>
}
