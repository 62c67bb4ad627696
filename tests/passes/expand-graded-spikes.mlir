// RUN: neuc opt %s -p expand-graded-spikes --split-input-file --verify-diagnostics | filecheck %s

// A neuron with two levels: two thresholds for each sign, weights back to its integrator, copies of the layer behind it.
// CHECK: neuc.notes = ["expand-graded-spikes: spike.multi_threshold: 3 neurons with 2 levels are 12 binary ones (9 more) behind 3 integrators; a spike of 2^k is k + 1 spikes, and synapses behind them are 4 times as many"]
// CHECK: spike.loop scan() init(%y0, %{{.*}}, %z) : (), (tensor<1x2xf32>, tensor<1x3xf32>, tensor<1x3xf32>) steps 4
// CHECK-NEXT: ^step(%t: tensor<i64>, %y: tensor<1x2xf32>, %[[BACK:.*]]: tensor<1x3xf32>, %[[V:.*]]: tensor<1x3xf32>):
// CHECK-NEXT: %[[IN:.*]] = dense.map(%x, %[[BACK]])
// CHECK: %[[M:.*]] = spike.integrator(%[[IN]], %[[V]])
// CHECK-NEXT: %[[NEG:.*]] = spike.scale(%[[M]],
// CHECK-NEXT: spike.threshold(%[[M]],
// CHECK-NEXT: spike.threshold(%[[NEG]],
// CHECK-NEXT: spike.threshold(%[[M]],
// CHECK-NEXT: spike.threshold(%[[NEG]],
// CHECK-COUNT-4: spike.linear({{.*}} : (tensor<1x3x!spike.event<binary>>, tensor<2x3xf32>) -> tensor<1x2xf32>
// CHECK-NOT: event<graded
func.func @main(%x: tensor<1x3xf32>) -> tensor<1x2xf32> {
  %unit = store.constant value dense<0.5> : tensor<f32> : tensor<f32>
  %zero = store.constant value dense<0.0> : tensor<f32> : tensor<f32>
  %w = store.constant value dense<[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]> : tensor<2x3xf32> : tensor<2x3xf32>
  %z = dense.broadcast(%zero) : (tensor<f32>) -> tensor<1x3xf32>
  %y0 = dense.broadcast(%zero) : (tensor<f32>) -> tensor<1x2xf32>
  %mn, %on, %yn = spike.loop scan() init(%z, %z, %y0) : (), (tensor<1x3xf32>, tensor<1x3xf32>, tensor<1x2xf32>) steps 4 -> () {
  ^step(%t: tensor<i64>, %m: tensor<1x3xf32>, %o: tensor<1x3xf32>, %y: tensor<1x2xf32>):
    %s, %m1, %o1 = spike.multi_threshold(%x, %m, %o, %unit) : (tensor<1x3xf32>, tensor<1x3xf32>, tensor<1x3xf32>, tensor<f32>) -> (tensor<1x3x!spike.event<graded, 2>>, tensor<1x3xf32>, tensor<1x3xf32>)
    %i = spike.linear(%s, %w) : (tensor<1x3x!spike.event<graded, 2>>, tensor<2x3xf32>) -> tensor<1x2xf32>
    %y1 = spike.accumulate(%i, %y) : (tensor<1x2xf32>, tensor<1x2xf32>) -> tensor<1x2xf32>
    spike.yield outputs() states(%m1, %o1, %y1) : (), (tensor<1x3xf32>, tensor<1x3xf32>, tensor<1x2xf32>)
  }
  func.return %yn : tensor<1x2xf32>
}

// -----

// CHECK: graded spikes of 1 operation cannot be expanded
func.func @main(%x: tensor<1x3xf32>) -> tensor<4x1x3x!spike.event<signed>> {
  %unit = store.constant value dense<0.5> : tensor<f32> : tensor<f32>
  %zero = store.constant value dense<0.0> : tensor<f32> : tensor<f32>
  %z = dense.broadcast(%zero) : (tensor<f32>) -> tensor<1x3xf32>
  %all, %mn, %on = spike.loop scan() init(%z, %z) : (), (tensor<1x3xf32>, tensor<1x3xf32>) steps 4 -> (tensor<4x1x3x!spike.event<signed>>) {
  ^step(%t: tensor<i64>, %m: tensor<1x3xf32>, %o: tensor<1x3xf32>):
    %s, %m1, %o1 = spike.multi_threshold(%x, %m, %o, %unit) : (tensor<1x3xf32>, tensor<1x3xf32>, tensor<1x3xf32>, tensor<f32>) -> (tensor<1x3x!spike.event<signed>>, tensor<1x3xf32>, tensor<1x3xf32>)
    spike.yield outputs(%s) states(%m1, %o1) : (tensor<1x3x!spike.event<signed>>), (tensor<1x3xf32>, tensor<1x3xf32>)
  }
  func.return %all : tensor<4x1x3x!spike.event<signed>>
}
