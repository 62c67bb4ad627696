// RUN: neuc opt %s -p 'partition{target="cpu-tl2"}' --print-debuginfo | filecheck %s
// RUN: not neuc opt %s -p 'partition{target="cpu-tl2" fallback="error"}' 2>&1 | filecheck %s --check-prefix=ERROR

// ERROR: error[NEUC-E101]: 1 operator not supported by target cpu-tl2
// ERROR: NonZero
// ERROR: middle

// CHECK-LABEL: func.func @main
// CHECK-NEXT: %[[A:.*]] = func.call @seg0(%x)
// CHECK-NEXT: %[[H:.*]] = func.call @host0(%[[A]])
// CHECK-NEXT: %[[R:.*]], %[[S:.*]] = func.call @seg1(%[[H]], %x)
// CHECK-NEXT: func.return
// CHECK: func.func @seg0({{.*}} attributes {neuc.target = "cpu-tl2"}
// CHECK-NEXT: dense.transpose{{.*}} loc("first")
// CHECK: func.func @host0({{.*}}onnx.name = "in0"{{.*}} attributes {neuc.target = "host"}
// CHECK-NEXT: onnx.NonZero{{.*}} loc("middle")
// The input that @main returns unchanged passes through a native segment.
// CHECK: func.func @seg1({{.*}} attributes {neuc.target = "cpu-tl2"}
// CHECK-NEXT: dense.transpose{{.*}} loc("last")
// CHECK-NEXT: func.return

builtin.module attributes {onnx.opsets = {ai.onnx = 26 : i64}} {
  func.func @main(%x: tensor<2x3xf32> {onnx.name = "x"}) -> (tensor<?x2xi64, #store.dims<"n", "2">> {onnx.name = "y"}, tensor<2x3xf32> {onnx.name = "z"}) {
    %unused = dense.transpose(%x) {perm = [1, 0]} : (tensor<2x3xf32>) -> tensor<3x2xf32>
    %0 = dense.transpose(%x) {perm = [1, 0]} : (tensor<2x3xf32>) -> tensor<3x2xf32> loc("first")
    %1 = onnx.NonZero(%0) {neuc.reason = "its size depends on the data"} : (tensor<3x2xf32>) -> tensor<2x?xi64, #store.dims<"2", "n">> loc("middle")
    %2 = dense.transpose(%1) {perm = [1, 0]} : (tensor<2x?xi64, #store.dims<"2", "n">>) -> tensor<?x2xi64, #store.dims<"n", "2">> loc("last")
    func.return %2, %x : tensor<?x2xi64, #store.dims<"n", "2">>, tensor<2x3xf32>
  }
}
