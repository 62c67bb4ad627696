// RUN: neuc opt %s -p 'convert-ann-to-snn{steps=4}' | filecheck %s
// RUN: neuc opt %s -p 'convert-ann-to-snn{steps=2 levels=3 coding="differential"}' | filecheck %s --check-prefix=CHANGES
// RUN: not neuc opt %s -p 'convert-ann-to-snn{steps=0}' 2>&1 | filecheck %s --check-prefix=REFUSED
// REFUSED: NEUC-E523

// The first product is a constant current before the loop; thresholds are scales of the next weights.
// CHECK: %[[I:.*]] = dense.matmul(%x
// CHECK: spike.loop {{.*}} steps 4
// CHECK: %[[S:.*]], %{{.*}} = spike.if(%[[I]], %{{.*}}, %{{.*}}) {{.*}} -> (tensor<2x2x!spike.event<binary>>
// CHECK: %[[O:.*]] = spike.linear(%[[S]], %{{.*}}, %{{.*}}) : {{.*}} -> tensor<2x2xf32>
// CHECK: spike.accumulate(%[[O]]
// CHECK: spike.yield
// CHECK: arith.divf

// Changes: no bias inside the loop, it is what the output begins with.
// CHANGES: spike.differential({{.*}}) {{.*}} -> (tensor<2x2x!spike.event<graded, 3>>
// CHANGES: spike.linear(%{{[0-9]+}}, %{{[0-9]+}}) :
// CHANGES: spike.yield
// CHANGES: arith.addf

builtin.module {
  func.func @main(%x: tensor<2x3xf32> {onnx.name = "x"}) -> (tensor<2x2xf32> {onnx.name = "y"}) {
    %w = store.constant value dense<[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]> : tensor<3x2xf32> : tensor<3x2xf32>
    %v = store.constant value dense<[[1.0, 2.0], [3.0, 4.0]]> : tensor<2x2xf32> : tensor<2x2xf32>
    %b = store.constant value dense<[0.5, -0.5]> : tensor<2xf32> : tensor<2xf32>
    %0 = dense.matmul(%x, %w, %b) : (tensor<2x3xf32>, tensor<3x2xf32>, tensor<2xf32>) -> tensor<2x2xf32>
    %1 = dense.map(%0) attributes {spike.neuron = "relu", spike.channel_axis = 1 : i64, spike.name = "act", spike.threshold = array<f32: 2.0, 4.0>} : (tensor<2x2xf32>) -> tensor<2x2xf32> {
    ^bb0(%a: f32):
      %z = arith.constant 0.0 : f32
      %r = arith.maximumf %a, %z : f32
      dense.yield %r : f32
    }
    %2 = dense.matmul(%1, %v, %b) : (tensor<2x2xf32>, tensor<2x2xf32>, tensor<2xf32>) -> tensor<2x2xf32>
    func.return %2 : tensor<2x2xf32>
  }
}
