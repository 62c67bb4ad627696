// RUN: neuc opt %s | filecheck %s
// RUN: neuc opt %s | neuc opt - | filecheck %s
// RUN: neuc opt %s --print-op-generic | neuc opt - | filecheck %s

// CHECK-LABEL: func.func @spins
func.func @spins(%seed: tensor<i64>, %beta: tensor<?xf32, #store.dims<"S">>) -> tensor<4x2x8xi32> {
  // CHECK: %x = energy.var() : () -> !energy.var<spin, [2, 8]>
  %x = energy.var() : () -> !energy.var<spin, [2, 8]>
  // CHECK: %y = energy.var() {role = clamped} : () -> !energy.var<cat<3>, [2]>
  %y = energy.var() {role = clamped} : () -> !energy.var<cat<3>, [2]>
  %j = store.constant value dense<0.5> : tensor<1xf32> : tensor<1xf32>
  // CHECK: %grid = energy.stencil(%x, %j) {offsets = [0, 1, 1, 0], periodic} :
  %grid = energy.stencil(%x, %j) {offsets = [0, 1, 1, 0], periodic} : (!energy.var<spin, [2, 8]>, tensor<1xf32>) -> !energy.term
  %sites = store.constant value dense<[0, 1]> : tensor<2xi32> : tensor<2xi32>
  %t = store.constant value dense<[[0.5, 0.0, -0.5]]> : tensor<1x3xf32> : tensor<1x3xf32>
  // CHECK: %table = energy.table(%x, %y, %sites, %sites, %t) {arity = 2} :
  %table = energy.table(%x, %y, %sites, %sites, %t) {arity = 2} : (!energy.var<spin, [2, 8]>, !energy.var<cat<3>, [2]>, tensor<2xi32>, tensor<2xi32>, tensor<1x3xf32>) -> !energy.term
  // CHECK: %m = energy.model(%x, %y, %grid, %table) {arity = 2} :
  %m = energy.model(%x, %y, %grid, %table) {arity = 2} : (!energy.var<spin, [2, 8]>, !energy.var<cat<3>, [2]>, !energy.term, !energy.term) -> !energy.model
  %order = store.constant "order" sha "0" : tensor<32xi32>
  // CHECK: %c = energy.color(%m, %order) {blocks = [0, 16, 32]} :
  %c = energy.color(%m, %order) {blocks = [0, 16, 32]} : (!energy.model, tensor<32xi32>) -> !energy.model
  // CHECK: %s = energy.init(%c, %seed) {chains = 4} :
  %s = energy.init(%c, %seed) {chains = 4} : (!energy.model, tensor<i64>) -> !energy.state
  // CHECK: %last, %kept = energy.sample(%c, %s, %beta, %seed) {rule = metropolis, warmup = 5, thin = 2} :
  %last, %kept = energy.sample(%c, %s, %beta, %seed) {rule = metropolis, warmup = 5, thin = 2} : (!energy.model, !energy.state, tensor<?xf32, #store.dims<"S">>, tensor<i64>) -> (!energy.state, !energy.trajectory)
  // CHECK: energy.observe(%kept) {what = energy} : (!energy.trajectory) -> tensor<?x4xf32, #store.dims<"max(((S + 1)//(2)) - 3, 0)", "4">>
  %e = energy.observe(%kept) {what = energy} : (!energy.trajectory) -> tensor<?x4xf32, #store.dims<"max(((S + 1)//(2)) - 3, 0)", "4">>
  // CHECK: %sum = energy.observe(%kept, %x) {what = sum} :
  %sum = energy.observe(%kept, %x) {what = sum} : (!energy.trajectory, !energy.var<spin, [2, 8]>) -> tensor<4x2x8xi32>
  // CHECK: energy.schedule() {kind = geometric, first = 0.1, last = 3.0, steps = 10} : () -> tensor<10xf32>
  %ramp = energy.schedule() {kind = geometric, first = 0.1, last = 3.0, steps = 10} : () -> tensor<10xf32>
  func.return %sum : tensor<4x2x8xi32>
}

// CHECK-LABEL: func.func @network
func.func @network(%data: tensor<?x3xf32, #store.dims<"B", "3">>, %label: tensor<?x2xf32, #store.dims<"B", "2">>, %w: tensor<2x3xf32>) -> tensor<2x3xf32> {
  %x = energy.var() {role = clamped} : () -> !energy.var<real, [3]>
  // CHECK: !energy.var<real[0.0, 1.0], [2]>
  %h = energy.var() : () -> !energy.var<real[0.0, 1.0], [2]>
  %y = energy.var() {role = clamped} : () -> !energy.var<real, [2]>
  %one = store.constant value dense<1.0> : tensor<f32> : tensor<f32>
  // CHECK: %q = energy.quad(%h, %one) :
  %q = energy.quad(%h, %one) : (!energy.var<real[0.0, 1.0], [2]>, tensor<f32>) -> !energy.term
  // CHECK: %r = energy.rho(%h) {fn = tanh} :
  %r = energy.rho(%h) {fn = tanh} : (!energy.var<real[0.0, 1.0], [2]>) -> !energy.var<real[0.0, 1.0], [2]>
  // CHECK: %b = energy.bilinear(%r, %w, %x) :
  %b = energy.bilinear(%r, %w, %x) : (!energy.var<real[0.0, 1.0], [2]>, tensor<2x3xf32>, !energy.var<real, [3]>) -> !energy.term
  // CHECK: %cost = energy.cost(%h, %y) {kind = ce} :
  %cost = energy.cost(%h, %y) {kind = ce} : (!energy.var<real[0.0, 1.0], [2]>, !energy.var<real, [2]>) -> !energy.term
  %m = energy.model(%x, %h, %y, %q, %b, %cost) {arity = 3} : (!energy.var<real, [3]>, !energy.var<real[0.0, 1.0], [2]>, !energy.var<real, [2]>, !energy.term, !energy.term, !energy.term) -> !energy.model
  // CHECK: %s = energy.state(%m, %data, %label, %label) :
  %s = energy.state(%m, %data, %label, %label) : (!energy.model, tensor<?x3xf32, #store.dims<"B", "3">>, tensor<?x2xf32, #store.dims<"B", "2">>, tensor<?x2xf32, #store.dims<"B", "2">>) -> !energy.state
  // CHECK: %up = energy.relax(%m, %s) {method = flow, steps = 20, dt = 0.5, nudge = 0.25} :
  %up = energy.relax(%m, %s) {method = flow, steps = 20, dt = 0.5, nudge = 0.25} : (!energy.model, !energy.state) -> !energy.state
  // CHECK: %down = energy.relax(%m, %s) {method = flow, steps = 20, dt = 0.5, nudge = -0.25} :
  %down = energy.relax(%m, %s) {method = flow, steps = 20, dt = 0.5, nudge = -0.25} : (!energy.model, !energy.state) -> !energy.state
  // CHECK: %dw = energy.contrast(%m, %up, %down, %w) {scale = 4.0} :
  %dw = energy.contrast(%m, %up, %down, %w) {scale = 4.0} : (!energy.model, !energy.state, !energy.state, tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return %dw : tensor<2x3xf32>
}

// CHECK-LABEL: func.func @convolution
func.func @convolution(%w: tensor<2xf32>, %i: tensor<4xi32>, %k: tensor<4xi32>, %b: tensor<3xf32>) {
  %x = energy.var() : () -> !energy.var<real, [3]>
  %y = energy.var() : () -> !energy.var<real, [4]>
  // CHECK: energy.edges(%x, %y, %i, %i, %w, %k) :
  %e = energy.edges(%x, %y, %i, %i, %w, %k) : (!energy.var<real, [3]>, !energy.var<real, [4]>, tensor<4xi32>, tensor<4xi32>, tensor<2xf32>, tensor<4xi32>) -> !energy.term
  // CHECK: energy.pred_edges(%x, %y, %i, %i, %k, %w, %b) {precision = 2.0} :
  %p = energy.pred_edges(%x, %y, %i, %i, %k, %w, %b) {precision = 2.0} : (!energy.var<real, [3]>, !energy.var<real, [4]>, tensor<4xi32>, tensor<4xi32>, tensor<4xi32>, tensor<2xf32>, tensor<3xf32>) -> !energy.term
  func.return
}

// -----

// CHECK: energy.prediction(%x, %z, %w) {precision = 2.0} : (!energy.var<real, [3]>, !energy.var<real, [4]>, tensor<4x3xf32>) -> !energy.term {
// CHECK: ^bb0(%a: tensor<?x4xf32, #store.dims<"chains", "4">>, %b: tensor<4x3xf32>):
// CHECK: energy.predicted %f : tensor<?x3xf32, #store.dims<"chains", "3">>
// CHECK: energy.prediction(%x, %z) {product}
func.func @region(%w: tensor<4x3xf32>) {
  %x = energy.var() : () -> !energy.var<real, [3]>
  %z = energy.var() : () -> !energy.var<real, [4]>
  %t = energy.prediction(%x, %z, %w) {precision = 2.0} : (!energy.var<real, [3]>, !energy.var<real, [4]>, tensor<4x3xf32>) -> !energy.term {
  ^bb0(%a: tensor<?x4xf32, #store.dims<"chains", "4">>, %b: tensor<4x3xf32>):
    %h = dense.map(%a) : (tensor<?x4xf32, #store.dims<"chains", "4">>) -> tensor<?x4xf32, #store.dims<"chains", "4">> {
    ^bb0(%s: f32):
      %u = math.tanh %s : f32
      dense.yield %u : f32
    }
    %f = dense.matmul(%h, %b) : (tensor<?x4xf32, #store.dims<"chains", "4">>, tensor<4x3xf32>) -> tensor<?x3xf32, #store.dims<"chains", "3">>
    energy.predicted %f : tensor<?x3xf32, #store.dims<"chains", "3">>
  }
  %p = energy.prediction(%x, %z) {product} : (!energy.var<real, [3]>, !energy.var<real, [4]>) -> !energy.term {
  ^bb0(%a: tensor<?x4xf32, #store.dims<"chains", "4">>):
    %f = dense.slice(%a) {starts = ["0", "1"], steps = [1, 1]} : (tensor<?x4xf32, #store.dims<"chains", "4">>) -> tensor<?x3xf32, #store.dims<"chains", "3">>
    energy.predicted %f : tensor<?x3xf32, #store.dims<"chains", "3">>
  }
  func.return
}

// -----

// CHECK: energy.rollout(%a, %b, %c, %d, %p, %a, %b, %d, %seed) {factors = 1, modalities = 1, a_factors = [0, -1], b_factors = [0, -1], agents = 4, steps = 10, iterations = 8, gamma = 2.0}
func.func @life(%a: tensor<3x2xf32>, %b: tensor<2x2x2xf32>, %c: tensor<3xf32>, %d: tensor<2xf32>, %p: tensor<4x2x1xi32>, %seed: tensor<i64>) -> tensor<4x10x1xi32> {
  %o, %s, %u, %v, %q = energy.rollout(%a, %b, %c, %d, %p, %a, %b, %d, %seed) {factors = 1, modalities = 1, a_factors = [0, -1], b_factors = [0, -1], agents = 4, steps = 10, iterations = 8, gamma = 2.0} : (tensor<3x2xf32>, tensor<2x2x2xf32>, tensor<3xf32>, tensor<2xf32>, tensor<4x2x1xi32>, tensor<3x2xf32>, tensor<2x2x2xf32>, tensor<2xf32>, tensor<i64>) -> (tensor<4x10x1xi32>, tensor<4x10x1xi32>, tensor<4x10x1xi32>, tensor<4x10x4xf32>, tensor<4x10x2xf32>)
  func.return %u : tensor<4x10x1xi32>
}
