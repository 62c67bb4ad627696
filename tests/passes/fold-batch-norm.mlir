// RUN: neuc opt %s -p fold-batch-norm --print-debuginfo | filecheck %s

// gain = 2/√4 and 4/√1; bias = 1 − 0.5·1 and 0 − 0·4.
// CHECK-LABEL: func.func @main
// CHECK: %[[W:.*]] = store.constant "conv.folded_weight"
// CHECK: %[[B:.*]] = store.constant value dense<[5.000000e-01, 0.000000e+00]>
// CHECK: %[[Y:.*]] = onnx.Conv(%x, %[[W]], %[[B]]) : {{.*}} loc(fused["conv"("m.onnx":0:0), "norm"("m.onnx":1:0)])
// CHECK-NOT: BatchNormalization
// CHECK: func.return %[[Y]]

// Somebody else reads the convolution's result: nothing is folded.
// CHECK-LABEL: func.func @read_twice
// CHECK: onnx.Conv(%x, %{{.*}}) :
// CHECK: onnx.BatchNormalization

builtin.module attributes {onnx.opsets = {ai.onnx = 26 : i64}} {
  func.func @main(%x: tensor<1x3x5x5xf32>) -> tensor<1x2x3x3xf32> {
    %w = store.constant value dense<1.0> : tensor<2x3x3x3xf32> : tensor<2x3x3x3xf32>
    %s = store.constant value dense<[2.0, 4.0]> : tensor<2xf32> : tensor<2xf32>
    %o = store.constant value dense<[1.0, 0.0]> : tensor<2xf32> : tensor<2xf32>
    %m = store.constant value dense<[0.5, 0.0]> : tensor<2xf32> : tensor<2xf32>
    %v = store.constant value dense<[4.0, 1.0]> : tensor<2xf32> : tensor<2xf32>
    %c = onnx.Conv(%x, %w) : (tensor<1x3x5x5xf32>, tensor<2x3x3x3xf32>) -> tensor<1x2x3x3xf32> loc("conv"("m.onnx":0:0))
    %y = onnx.BatchNormalization(%c, %s, %o, %m, %v) {epsilon = 0.0 : f32} : (tensor<1x2x3x3xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<1x2x3x3xf32> loc("norm"("m.onnx":1:0))
    func.return %y : tensor<1x2x3x3xf32>
  }
  func.func @read_twice(%x: tensor<1x3x5x5xf32>) -> (tensor<1x2x3x3xf32>, tensor<1x2x3x3xf32>) {
    %w = store.constant value dense<1.0> : tensor<2x3x3x3xf32> : tensor<2x3x3x3xf32>
    %s = store.constant value dense<[2.0, 4.0]> : tensor<2xf32> : tensor<2xf32>
    %c = onnx.Conv(%x, %w) : (tensor<1x3x5x5xf32>, tensor<2x3x3x3xf32>) -> tensor<1x2x3x3xf32>
    %y = onnx.BatchNormalization(%c, %s, %s, %s, %s) : (tensor<1x2x3x3xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<1x2x3x3xf32>
    func.return %y, %c : tensor<1x2x3x3xf32>, tensor<1x2x3x3xf32>
  }
}
