// RUN: neuc opt %s -p 'mark-neurons{after="relu_0"}' | filecheck %s
// RUN: not neuc opt %s -p 'mark-neurons{after="relu_9"}' 2>&1 | filecheck %s --check-prefix=REFUSED
// REFUSED: NEUC-E527

// What does not depend on the node stays numbers, the node itself included; the ReLU behind it is a site.
// CHECK: dense.map(%x) :
// CHECK: dense.matmul
// CHECK: dense.map(%{{.*}}) attributes {spike.neuron = "relu"
builtin.module {
  func.func @main(%x: tensor<2x3xf32>) -> tensor<2x4xf32> {
    %w = store.constant value dense<1.0> : tensor<3x4xf32> : tensor<3x4xf32>
    %0 = dense.map(%x) : (tensor<2x3xf32>) -> tensor<2x3xf32> {
    ^bb0(%a: f32):
      %z = arith.constant 0.0 : f32
      %r = arith.maximumf %a, %z : f32
      dense.yield %r : f32
    } loc("relu_0"("net.onnx":0:0))
    %1 = dense.matmul(%0, %w) : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32>
    %2 = dense.map(%1) : (tensor<2x4xf32>) -> tensor<2x4xf32> {
    ^bb0(%a: f32):
      %z = arith.constant 0.0 : f32
      %r = arith.maximumf %a, %z : f32
      dense.yield %r : f32
    } loc("relu_1"("net.onnx":1:0))
    func.return %2 : tensor<2x4xf32>
  }
}
