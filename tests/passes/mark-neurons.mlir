// RUN: neuc opt %s -p 'pool-before-activation,mark-neurons{recipe="b"}' | filecheck %s
// RUN: not neuc opt %s -p 'mark-neurons{recipe="q"}' 2>&1 | filecheck %s --check-prefix=REFUSED
// REFUSED: NEUC-E527

// Max-pooling moves before the ReLU, which becomes a site with a threshold for each channel.
// CHECK-LABEL: func.func @pooled
// CHECK: %[[C:.*]] = dense.conv
// CHECK: %[[P:.*]] = dense.pool(%[[C]])
// CHECK: dense.map(%[[P]]) attributes {spike.neuron = "relu", spike.channel_axis = 1 : i64

// A product behind GELU would see no spikes: a site of signed neurons comes between.
// CHECK-LABEL: func.func @curved
// CHECK: math.tanh
// CHECK: dense.map(%{{.*}}) attributes {spike.neuron = "identity", spike.channel_axis = 1 : i64
// CHECK: dense.matmul

builtin.module {
  func.func @pooled(%x: tensor<1x1x4x4xf32>, %w: tensor<2x1x3x3xf32>) -> tensor<1x2x2x2xf32> {
    %0 = dense.conv(%x, %w) {strides = [1, 1], pads = [1, 1, 1, 1], dilations = [1, 1]} : (tensor<1x1x4x4xf32>, tensor<2x1x3x3xf32>) -> tensor<1x2x4x4xf32>
    %1 = dense.map(%0) : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
    ^bb0(%a: f32):
      %z = arith.constant 0.0 : f32
      %r = arith.maximumf %a, %z : f32
      dense.yield %r : f32
    }
    %2 = dense.pool(%1) {kind = max, kernel = [2, 2], strides = [2, 2], pads = [0, 0, 0, 0], dilations = [1, 1]} : (tensor<1x2x4x4xf32>) -> tensor<1x2x2x2xf32>
    func.return %2 : tensor<1x2x2x2xf32>
  }
  func.func @curved(%x: tensor<2x3xf32>) -> tensor<2x4xf32> {
    %w = store.constant value dense<1.0> : tensor<3x4xf32> : tensor<3x4xf32>
    %0 = dense.map(%x) : (tensor<2x3xf32>) -> tensor<2x3xf32> {
    ^bb0(%a: f32):
      %t = math.tanh %a : f32
      dense.yield %t : f32
    }
    %1 = dense.matmul(%0, %w) : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32>
    func.return %1 : tensor<2x4xf32>
  }
}
