// RUN: neuc opt %s --split-input-file --verify-diagnostics | filecheck %s

// CHECK: the box [1.0, 0.0] is empty
func.func @main(%x: !energy.var<real[1.0, 0.0], [3]>) {
  func.return
}

// -----

// CHECK: x ranges over cat; this term takes spin, real, phase, complex
func.func @main(%w: tensor<2x2xf32>) {
  %x = energy.var() : () -> !energy.var<cat<3>, [2]>
  %t = energy.bilinear(%x, %w, %x) : (!energy.var<cat<3>, [2]>, tensor<2x2xf32>, !energy.var<cat<3>, [2]>) -> !energy.term
  func.return
}

// -----

// CHECK: W has shape [2, 3], should have [2, 2]
func.func @main(%w: tensor<2x3xf32>) {
  %x = energy.var() : () -> !energy.var<spin, [2]>
  %t = energy.bilinear(%x, %w, %x) : (!energy.var<spin, [2]>, tensor<2x3xf32>, !energy.var<spin, [2]>) -> !energy.term
  func.return
}

// -----

// CHECK: one block for a stencil joins neighbours: every site of it has some
func.func @main(%j: tensor<1xf32>, %order: tensor<16xi32>) {
  %x = energy.var() : () -> !energy.var<spin, [4, 4]>
  %t = energy.stencil(%x, %j) {offsets = [0, 1]} : (!energy.var<spin, [4, 4]>, tensor<1xf32>) -> !energy.term
  %m = energy.model(%x, %t) {arity = 1} : (!energy.var<spin, [4, 4]>, !energy.term) -> !energy.model
  %c = energy.color(%m, %order) {blocks = [0, 16]} : (!energy.model, tensor<16xi32>) -> !energy.model
  func.return
}

// -----

// CHECK: a model with energy.vector_field cannot be sampled: its forces need come from no energy
func.func @main(%w: tensor<2x2xf32>, %x0: tensor<1x2xf32>, %beta: tensor<9xf32>, %seed: tensor<i64>) {
  %x = energy.var() : () -> !energy.var<real, [2]>
  %t = energy.vector_field(%x, %w, %x) : (!energy.var<real, [2]>, tensor<2x2xf32>, !energy.var<real, [2]>) -> !energy.term
  %m = energy.model(%x, %t) {arity = 1} : (!energy.var<real, [2]>, !energy.term) -> !energy.model
  %s = energy.state(%m, %x0) : (!energy.model, tensor<1x2xf32>) -> !energy.state
  %a, %b = energy.sample(%m, %s, %beta, %seed) {rule = langevin, dt = 0.1} : (!energy.model, !energy.state, tensor<9xf32>, tensor<i64>) -> (!energy.state, !energy.trajectory)
  func.return
}

// -----

// CHECK: a model with energy.vector_field has no gradient: its forces need come from no energy
func.func @main(%w: tensor<2x2xf32>, %x0: tensor<1x2xf32>) {
  %x = energy.var() : () -> !energy.var<real, [2]>
  %t = energy.vector_field(%x, %w, %x) : (!energy.var<real, [2]>, tensor<2x2xf32>, !energy.var<real, [2]>) -> !energy.term
  %m = energy.model(%x, %t) {arity = 1} : (!energy.var<real, [2]>, !energy.term) -> !energy.model
  %s = energy.state(%m, %x0) : (!energy.model, tensor<1x2xf32>) -> !energy.state
  %g = energy.grad(%m, %s, %w) : (!energy.model, !energy.state, tensor<2x2xf32>) -> tensor<2x2xf32>
  func.return
}

// -----

// CHECK: inverse temperatures are above 0
func.func @main() {
  %b = energy.schedule() {first = 0.0, last = 1.0, steps = 4} : () -> tensor<4xf32>
  func.return
}

// -----

// CHECK: a schedule has at least one step
func.func @main() {
  %b = energy.schedule() {first = 0.5, last = 1.0, steps = 0} : () -> tensor<0xf32>
  func.return
}

// -----

// CHECK: spins come before categories and beliefs
func.func @main(%i: tensor<1xi32>, %t: tensor<1x3xf32>) {
  %x = energy.var() : () -> !energy.var<spin, [2]>
  %c = energy.var() : () -> !energy.var<cat<3>, [2]>
  %f = energy.table(%c, %x, %i, %i, %t) {arity = 2} : (!energy.var<cat<3>, [2]>, !energy.var<spin, [2]>, tensor<1xi32>, tensor<1xi32>, tensor<1x3xf32>) -> !energy.term
  func.return
}

// -----

// CHECK: i has shape [4], should have [3]
func.func @main(%w: tensor<2xf32>, %i: tensor<4xi32>, %k: tensor<3xi32>) {
  %x = energy.var() : () -> !energy.var<real, [3]>
  %p = energy.pred_edges(%x, %x, %i, %i, %k, %w) : (!energy.var<real, [3]>, !energy.var<real, [3]>, tensor<4xi32>, tensor<4xi32>, tensor<3xi32>, tensor<2xf32>) -> !energy.term
  func.return
}

// -----

// CHECK: dense.softmax has no derivative in predictions, which take dense.broadcast, dense.concat, dense.conv
func.func @main() {
  %x = energy.var() : () -> !energy.var<real, [4]>
  %t = energy.prediction(%x, %x) : (!energy.var<real, [4]>, !energy.var<real, [4]>) -> !energy.term {
  ^bb0(%a: tensor<?x4xf32, #store.dims<"chains", "4">>):
    %f = dense.softmax(%a) {axis = 1} : (tensor<?x4xf32, #store.dims<"chains", "4">>) -> tensor<?x4xf32, #store.dims<"chains", "4">>
    energy.predicted %f : tensor<?x4xf32, #store.dims<"chains", "4">>
  }
  func.return
}


// -----

// CHECK: dense.map in a prediction: math.exp2 has no derivative here
func.func @main() {
  %x = energy.var() : () -> !energy.var<real, [4]>
  %t = energy.prediction(%x, %x) : (!energy.var<real, [4]>, !energy.var<real, [4]>) -> !energy.term {
  ^bb0(%a: tensor<?x4xf32, #store.dims<"chains", "4">>):
    %f = dense.map(%a) : (tensor<?x4xf32, #store.dims<"chains", "4">>) -> tensor<?x4xf32, #store.dims<"chains", "4">> {
    ^bb1(%s: f32):
      %u = math.exp2 %s : f32
      dense.yield %u : f32
    }
    energy.predicted %f : tensor<?x4xf32, #store.dims<"chains", "4">>
  }
  func.return
}


// -----

// CHECK: dense.reduce in a prediction: it mixes chains
func.func @main() {
  %x = energy.var() : () -> !energy.var<real, [4]>
  %t = energy.prediction(%x, %x) : (!energy.var<real, [4]>, !energy.var<real, [4]>) -> !energy.term {
  ^bb0(%a: tensor<?x4xf32, #store.dims<"chains", "4">>):
    %f = dense.reduce(%a) {kind = sum, axes = [0]} : (tensor<?x4xf32, #store.dims<"chains", "4">>) -> tensor<4xf32>
    energy.predicted %f : tensor<4xf32>
  }
  func.return
}


// -----

// CHECK: dense.map in a prediction reads a value from outside: make it an operand of the term
func.func @main(%w: tensor<4xf32>) {
  %x = energy.var() : () -> !energy.var<real, [4]>
  %t = energy.prediction(%x, %x) : (!energy.var<real, [4]>, !energy.var<real, [4]>) -> !energy.term {
  ^bb0(%a: tensor<?x4xf32, #store.dims<"chains", "4">>):
    %f = dense.map(%a, %w) : (tensor<?x4xf32, #store.dims<"chains", "4">>, tensor<4xf32>) -> tensor<?x4xf32, #store.dims<"chains", "4">> {
    ^bb1(%s: f32, %v: f32):
      %u = arith.addf %s, %v : f32
      dense.yield %u : f32
    }
    energy.predicted %f : tensor<?x4xf32, #store.dims<"chains", "4">>
  }
  func.return
}


// -----

// CHECK: the region predicts tensor<?x2xf32
func.func @main() {
  %x = energy.var() : () -> !energy.var<real, [4]>
  %t = energy.prediction(%x, %x) : (!energy.var<real, [4]>, !energy.var<real, [4]>) -> !energy.term {
  ^bb0(%a: tensor<?x4xf32, #store.dims<"chains", "4">>):
    %f = dense.slice(%a) {starts = ["0", "0"], steps = [1, 1]} : (tensor<?x4xf32, #store.dims<"chains", "4">>) -> tensor<?x2xf32, #store.dims<"chains", "2">>
    energy.predicted %f : tensor<?x2xf32, #store.dims<"chains", "2">>
  }
  func.return
}

// -----

// CHECK: the world's B has shape [2, 2, 3], should have [2, 2, 2]
func.func @main(%a: tensor<3x2xf32>, %b: tensor<2x2x2xf32>, %w: tensor<2x2x3xf32>, %c: tensor<3xf32>, %d: tensor<2xf32>, %p: tensor<4x2x1xi32>, %seed: tensor<i64>) {
  %o, %s, %u, %v, %q = energy.rollout(%a, %b, %c, %d, %p, %a, %w, %d, %seed) {factors = 1, modalities = 1, a_factors = [0, -1], b_factors = [0, -1], agents = 4, steps = 10, iterations = 8, gamma = 2.0} : (tensor<3x2xf32>, tensor<2x2x2xf32>, tensor<3xf32>, tensor<2xf32>, tensor<4x2x1xi32>, tensor<3x2xf32>, tensor<2x2x3xf32>, tensor<2xf32>, tensor<i64>) -> (tensor<4x10x1xi32>, tensor<4x10x1xi32>, tensor<4x10x1xi32>, tensor<4x10x4xf32>, tensor<4x10x2xf32>)
  func.return
}
