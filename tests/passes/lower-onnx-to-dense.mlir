// RUN: neuc opt %s -p lower-onnx-to-dense --split-input-file --print-debuginfo | filecheck %s

// A node becomes dense operations at its own location.
// CHECK-LABEL: func.func @main
// CHECK: %y = dense.map(%x) : (tensor<4xf32>) -> tensor<4xf32> {
// CHECK-NEXT: ^bb0(%0: f32 {{.*}}):
// CHECK-NEXT: arith.constant 0.000000e+00 : f32
// CHECK-NEXT: arith.maximumf
// CHECK-NEXT: dense.yield
// CHECK-NEXT: } loc("relu"("m.onnx":0:0))
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %y = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32> loc("relu"("m.onnx":0:0))
  func.return %y : tensor<4xf32>
}

// -----

// Until opset 12 softmax joined the axes from its axis on.
// CHECK: dense.reshape(%x) : (tensor<2x3x4xf32>) -> tensor<2x12xf32>
// CHECK-NEXT: dense.softmax({{.*}}) {axis = 1} : (tensor<2x12xf32>) -> tensor<2x12xf32>
// CHECK-NEXT: dense.reshape({{.*}}) : (tensor<2x12xf32>) -> tensor<2x3x4xf32>
builtin.module attributes {onnx.opsets = {"ai.onnx" = 11 : i64}} {
  func.func @main(%x: tensor<2x3x4xf32>) -> tensor<2x3x4xf32> {
    %y = onnx.Softmax(%x) {axis = 1 : i64} : (tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
    func.return %y : tensor<2x3x4xf32>
  }
}

// -----

// Bounds of Clip were attributes, and a dim that inference left open is found again.
// CHECK: func.func @main(%x: tensor<?xf32, #store.dims<"N">> {{.*}}) -> tensor<?xf32, #store.dims<"N">>
// CHECK: dense.map
builtin.module attributes {onnx.opsets = {"ai.onnx" = 9 : i64}} {
  func.func @main(%x: tensor<?xf32, #store.dims<"N">>) -> tensor<?xf32, #store.dims<"found">> {
    %y = onnx.Clip(%x) {min = 0.0 : f32, max = 6.0 : f32} : (tensor<?xf32, #store.dims<"N">>) -> tensor<?xf32, #store.dims<"found">>
    func.return %y : tensor<?xf32, #store.dims<"found">>
  }
}

// -----

// What cannot be lowered stays, with the reason.
// CHECK: onnx.NonZero(%x) {neuc.reason = "no lowering"}
func.func @main(%x: tensor<4xf32>) -> tensor<1x?xi64, #store.dims<"1", "n">> {
  %y = onnx.NonZero(%x) : (tensor<4xf32>) -> tensor<1x?xi64, #store.dims<"1", "n">>
  func.return %y : tensor<1x?xi64, #store.dims<"1", "n">>
}
