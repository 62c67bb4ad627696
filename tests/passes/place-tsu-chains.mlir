// RUN: neuc opt %s -p 'place-tsu{chain=3.0}' | filecheck %s

// Three spins that all couple are an odd cycle: two cells stand for one of them, and reads are votes.
// CHECK: tsu-sim: 3 spins stand as 4 cells, in chains of up to 2 coupled by 3
// CHECK: -> (tensor<2x3xi8>, tensor<2xf32> {onnx.name = "chain_breaks"})
// CHECK: %cells = energy.var() : () -> !energy.var<spin, [4]>
// CHECK: energy.init(
// CHECK: energy.sample(
// CHECK: energy.read(%a, %cells)
// CHECK: dense.matmul(
// CHECK-NOT: energy.var<spin, [3]>
func.func @main(%beta: tensor<9xf32>, %seed: tensor<i64>) -> tensor<2x3xi8> {
  %i = store.constant value dense<[0, 1, 2]> : tensor<3xi32> : tensor<3xi32>
  %j = store.constant value dense<[1, 2, 0]> : tensor<3xi32> : tensor<3xi32>
  %w = store.constant value dense<[1.0, 1.0, 1.0]> : tensor<3xf32> : tensor<3xf32>
  %x = energy.var() : () -> !energy.var<spin, [3]>
  %t = energy.edges(%x, %x, %i, %j, %w) : (!energy.var<spin, [3]>, !energy.var<spin, [3]>, tensor<3xi32>, tensor<3xi32>, tensor<3xf32>) -> !energy.term
  %m = energy.model(%x, %t) {arity = 1} : (!energy.var<spin, [3]>, !energy.term) -> !energy.model
  %s = energy.init(%m, %seed) {chains = 2} : (!energy.model, tensor<i64>) -> !energy.state
  %a, %b = energy.sample(%m, %s, %beta, %seed) : (!energy.model, !energy.state, tensor<9xf32>, tensor<i64>) -> (!energy.state, !energy.trajectory)
  %r = energy.read(%a, %x) : (!energy.state, !energy.var<spin, [3]>) -> tensor<2x3xi8>
  func.return %r : tensor<2x3xi8>
}
