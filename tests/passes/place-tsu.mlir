// RUN: neuc opt %s -p place-tsu | filecheck %s
// RUN: not neuc opt %s -p 'place-tsu{rows=1 columns=3}' 2>&1 | filecheck %s --check-prefix=SMALL

// A chain of four spins on the chip's grid is swept in the two colours of its checkerboard.
// SMALL: NEUC-E637
// CHECK: tsu-sim: 4 spins and 3 couplings on 3 x 2 cells of z1
// CHECK: %m = energy.model
// CHECK: [[ORDER:%[0-9]+]] = store.constant "order" sha {{.*}} : tensor<64xi32>
// CHECK: [[C:%[0-9]+]] = energy.color(%m, [[ORDER]]) {blocks = [0, 32, 64]} :
// CHECK: energy.sample([[C]], %s,
func.func @main(%beta: tensor<9xf32>, %seed: tensor<i64>) {
  %i = store.constant value dense<[0, 1, 2]> : tensor<3xi32> : tensor<3xi32>
  %j = store.constant value dense<[1, 2, 3]> : tensor<3xi32> : tensor<3xi32>
  %w = store.constant value dense<[1.0, 1.0, 1.0]> : tensor<3xf32> : tensor<3xf32>
  %x = energy.var() : () -> !energy.var<spin, [4]>
  %t = energy.edges(%x, %x, %i, %j, %w) : (!energy.var<spin, [4]>, !energy.var<spin, [4]>, tensor<3xi32>, tensor<3xi32>, tensor<3xf32>) -> !energy.term
  %m = energy.model(%x, %t) {arity = 1} : (!energy.var<spin, [4]>, !energy.term) -> !energy.model
  %s = energy.init(%m, %seed) {chains = 1} : (!energy.model, tensor<i64>) -> !energy.state
  %a, %b = energy.sample(%m, %s, %beta, %seed) : (!energy.model, !energy.state, tensor<9xf32>, tensor<i64>) -> (!energy.state, !energy.trajectory)
  func.return
}
