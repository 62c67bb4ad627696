// RUN: neuc opt %s -p color-blocks | filecheck %s

// A grid is a checkerboard: two blocks of 8 sites, each on 16 positions.
// CHECK-LABEL: func.func @grid
// CHECK: %m = energy.model
// CHECK: [[ORDER:%[0-9]+]] = store.constant "order" sha {{.*}} : tensor<32xi32>
// CHECK: [[C:%[0-9]+]] = energy.color(%m, [[ORDER]]) {blocks = [0, 16, 32]} :
// CHECK: energy.sample([[C]], %s,
func.func @grid(%beta: tensor<9xf32>, %seed: tensor<i64>) {
  %j = store.constant value dense<0.5> : tensor<1xf32> : tensor<1xf32>
  %x = energy.var() : () -> !energy.var<spin, [4, 4]>
  %t = energy.stencil(%x, %j) {offsets = [0, 1, 1, 0], periodic} : (!energy.var<spin, [4, 4]>, tensor<1xf32>) -> !energy.term
  %m = energy.model(%x, %t) {arity = 1} : (!energy.var<spin, [4, 4]>, !energy.term) -> !energy.model
  %s = energy.init(%m, %seed) {chains = 1} : (!energy.model, tensor<i64>) -> !energy.state
  %a, %b = energy.sample(%m, %s, %beta, %seed) : (!energy.model, !energy.state, tensor<9xf32>, tensor<i64>) -> (!energy.state, !energy.trajectory)
  func.return
}

// A triangle takes three blocks.
// CHECK-LABEL: func.func @triangle
// CHECK: energy.color(%m, {{.*}}) {blocks = [0, 16, 32, 48]} :
func.func @triangle(%beta: tensor<9xf32>, %seed: tensor<i64>) {
  %i = store.constant value dense<[0, 1, 2]> : tensor<3xi32> : tensor<3xi32>
  %j = store.constant value dense<[1, 2, 0]> : tensor<3xi32> : tensor<3xi32>
  %w = store.constant value dense<[1.0, 1.0, 1.0]> : tensor<3xf32> : tensor<3xf32>
  %x = energy.var() : () -> !energy.var<spin, [3]>
  %t = energy.edges(%x, %x, %i, %j, %w) : (!energy.var<spin, [3]>, !energy.var<spin, [3]>, tensor<3xi32>, tensor<3xi32>, tensor<3xf32>) -> !energy.term
  %m = energy.model(%x, %t) {arity = 1} : (!energy.var<spin, [3]>, !energy.term) -> !energy.model
  %s = energy.init(%m, %seed) {chains = 1} : (!energy.model, tensor<i64>) -> !energy.state
  %a, %b = energy.sample(%m, %s, %beta, %seed) : (!energy.model, !energy.state, tensor<9xf32>, tensor<i64>) -> (!energy.state, !energy.trajectory)
  func.return
}
