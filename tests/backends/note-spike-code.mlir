// RUN: neuc opt %s -p note-spike-code | filecheck %s

// CHECK: neuc.notes = ["4 time steps layer by layer: spike.if neurons over all steps; spike.linear once, on sums over time",
// CHECK-SAME: "3 time steps one after the other, as a state of spike.if is used elsewhere"]
builtin.module {
  func.func @main(%x: tensor<2x3xf32>, %w: tensor<1xf32>) -> (tensor<2x4xf32>, tensor<2x3xf32>) {
    %weight = store.constant value dense<1.0> : tensor<4x3xf32> : tensor<4x3xf32>
    %v0 = store.constant value dense<0.0> : tensor<2x3xf32> : tensor<2x3xf32>
    %y0 = store.constant value dense<0.0> : tensor<2x4xf32> : tensor<2x4xf32>
    %v, %y = spike.loop scan() init(%v0, %y0) : (), (tensor<2x3xf32>, tensor<2x4xf32>) steps 4 -> () {
    ^bb0(%t: tensor<i64>, %u: tensor<2x3xf32>, %total: tensor<2x4xf32>):
      %s, %u2 = spike.if(%x, %u, %w) : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<1xf32>) -> (tensor<2x3x!spike.event<binary>>, tensor<2x3xf32>)
      %i = spike.linear(%s, %weight) : (tensor<2x3x!spike.event<binary>>, tensor<4x3xf32>) -> tensor<2x4xf32>
      %total2 = spike.accumulate(%i, %total) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
      spike.yield outputs() states(%u2, %total2) : (), (tensor<2x3xf32>, tensor<2x4xf32>)
    }
    %z = spike.loop scan() init(%v0) : (), (tensor<2x3xf32>) steps 3 -> () {
    ^bb1(%t: tensor<i64>, %u: tensor<2x3xf32>):
      %s, %u2 = spike.if(%u, %u, %w) : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<1xf32>) -> (tensor<2x3x!spike.event<binary>>, tensor<2x3xf32>)
      spike.yield outputs() states(%u2) : (), (tensor<2x3xf32>)
    }
    func.return %y, %z : tensor<2x4xf32>, tensor<2x3xf32>
  }
}
