// RUN: neuc opt %s -p 'bf16-rows{mode=always},place-rows' | filecheck %s
// RUN: neuc opt %s -p 'bf16-rows{mode=auto}' | filecheck %s --check-prefix=AUTO

// What one value decides alone is a table, or a step where a bf16 number does it; the rest are steps of two values.
// CHECK: builtin.module
// CHECK-SAME: 2 operations on floats stay on the CPU, because arith.divf of two tensors is no step of a core
// CHECK-LABEL: func.func @main
// CHECK: %[[Y:.*]] = func.call @rows0(%x, %z)
// CHECK: %[[S:.*]] = func.call @rows1(%[[Y]])
// CHECK-NEXT: func.call @rows2(%[[S]])
// CHECK: dense.map
// CHECK: func.func private @rows0
// CHECK-SAME: neuc.executor = "npu-rows"
// CHECK-SAME: npu.rows = "1 x {{[0-9]+}}"
// CHECK-SAME: npu.switch
// CHECK: npu.chain
// CHECK-SAME: steps = ["curve 0 0", "mul 2 1", "constant 0.0", "max 3 4"]
// CHECK: func.func private @rows1
// CHECK: npu.softmax
// CHECK: func.func private @rows2
// CHECK: npu.layer_norm

// AUTO: 3 operations on floats stay on the CPU, because a dispatch to npu-xdna2
// AUTO-NOT: npu.chain
func.func @main(%x: tensor<4x32xf32>, %z: tensor<32xf32>) -> (tensor<4x32xf32>, tensor<4x32xf32>, tensor<4x32xf32>) {
  %y = dense.map(%x, %z) : (tensor<4x32xf32>, tensor<32xf32>) -> tensor<4x32xf32> {
  ^bb0(%a: f32, %b: f32):
    %t = math.tanh %a : f32
    %p = arith.mulf %t, %b : f32
    %o = arith.constant 0.0 : f32
    %r = arith.maximumf %p, %o : f32
    dense.yield %r : f32
  }
  %s = dense.softmax(%y) {axis = 1} : (tensor<4x32xf32>) -> tensor<4x32xf32>
  %n = dense.layer_norm(%s) {axis = 1, eps = 1.0e-5} : (tensor<4x32xf32>) -> tensor<4x32xf32>
  %q = dense.map(%x, %z) : (tensor<4x32xf32>, tensor<32xf32>) -> tensor<4x32xf32> {
  ^bb0(%a: f32, %b: f32):
    %d = arith.divf %a, %b : f32
    dense.yield %d : f32
  }
  %u = dense.map(%q, %z) : (tensor<4x32xf32>, tensor<32xf32>) -> tensor<4x32xf32> {
  ^bb0(%a: f32, %b: f32):
    %d = arith.divf %a, %b : f32
    dense.yield %d : f32
  }
  func.return %y, %n, %u : tensor<4x32xf32>, tensor<4x32xf32>, tensor<4x32xf32>
}
