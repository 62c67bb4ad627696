// RUN: neuc opt %s -p unroll-relaxation | filecheck %s

// Two steps of block minimisation: the clamped input is multiplied once, the two layers by each other every step.
// CHECK-LABEL: func.func @main
// CHECK: dense.matmul(%x,
// CHECK-NOT: dense.matmul(%x,
// CHECK: dense.matmul
// CHECK: dense.matmul
// CHECK: dense.matmul
// CHECK: dense.matmul
// CHECK-NOT: dense.matmul
// CHECK-NOT: energy.relax
// CHECK-NOT: energy.read
// CHECK: func.return
func.func @main(%x: tensor<5x3xf32>, %h: tensor<5x2xf32>, %o: tensor<5x2xf32>) -> tensor<5x2xf32> {
  %w = store.constant value dense<[[0.5, -0.5], [0.25, 0.0], [1.0, 2.0]]> : tensor<3x2xf32> : tensor<3x2xf32>
  %u = store.constant value dense<[[0.5, 0.25], [-1.0, 0.125]]> : tensor<2x2xf32> : tensor<2x2xf32>
  %p = store.constant value dense<1.0> : tensor<f32> : tensor<f32>
  %a = energy.var() {role = clamped} : () -> !energy.var<real, [3]>
  %b = energy.var() : () -> !energy.var<real[0.0, 1.0], [2]>
  %c = energy.var() : () -> !energy.var<real[0.0, 1.0], [2]>
  %t0 = energy.quad(%b, %p) : (!energy.var<real[0.0, 1.0], [2]>, tensor<f32>) -> !energy.term
  %t1 = energy.quad(%c, %p) : (!energy.var<real[0.0, 1.0], [2]>, tensor<f32>) -> !energy.term
  %t2 = energy.bilinear(%a, %w, %b) : (!energy.var<real, [3]>, tensor<3x2xf32>, !energy.var<real[0.0, 1.0], [2]>) -> !energy.term
  %t3 = energy.bilinear(%b, %u, %c) : (!energy.var<real[0.0, 1.0], [2]>, tensor<2x2xf32>, !energy.var<real[0.0, 1.0], [2]>) -> !energy.term
  %m = energy.model(%a, %b, %c, %t0, %t1, %t2, %t3) {arity = 3} : (!energy.var<real, [3]>, !energy.var<real[0.0, 1.0], [2]>, !energy.var<real[0.0, 1.0], [2]>, !energy.term, !energy.term, !energy.term, !energy.term) -> !energy.model
  %s = energy.state(%m, %x, %h, %o) : (!energy.model, tensor<5x3xf32>, tensor<5x2xf32>, tensor<5x2xf32>) -> !energy.state
  %r = energy.relax(%m, %s) {method = block_min, steps = 2} : (!energy.model, !energy.state) -> !energy.state
  %y = energy.read(%r, %c) : (!energy.state, !energy.var<real[0.0, 1.0], [2]>) -> tensor<5x2xf32>
  func.return %y : tensor<5x2xf32>
}
