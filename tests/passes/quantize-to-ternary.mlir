// RUN: neuc opt %s -p 'quantize-to-ternary{planes=1}' --print-debuginfo | filecheck %s
// RUN: neuc opt %s -p 'quantize-to-ternary{planes=1 layers="k=0"}' --print-debuginfo | filecheck %s --check-prefix=KEEP
// RUN: not neuc opt %s -p 'quantize-to-ternary{layers="nope=2"}' 2>&1 | filecheck %s --check-prefix=ERR

// ERR: option layers names 'nope'

// Two layers read %x: one quantisation serves both, and stands for both nodes. The column [1, 0, -1, ...] is ternary
// already and taken as it is, 0 ULP off. The float weights are gone.
// CHECK-LABEL: func.func @main
// CHECK-NOT: tensor<16x1xf32>
// CHECK: %[[Q:.*]], %[[S:.*]] = ternary.quantize %x : tensor<?x16xf32, #store.dims<"B", "16">> -> tensor<?x16xi8, #store.dims<"B", "16">>, tensor<?xf32, #store.dims<"B">> loc(fused["q", "k"])
// CHECK-NEXT: %[[W:.*]] = ternary.weight trits "q.levels.trits" sha "{{[0-9a-f]+}}" scales "q.levels.scales" sha "{{[0-9a-f]+}}" {ternary.ulp = 0 : i64} : !ternary.trits<1x16, scale = tensor, planes = 1> loc("q")
// CHECK-NEXT: %q = ternary.linear %[[Q]], %[[S]], %[[W]] bias %b activation <relu> : ({{.*}}) -> tensor<?x1xf32, #store.dims<"B", "1">> loc("q")
// CHECK-NEXT: ternary.weight {{.*}} sqnr 11.8{{[0-9]*}} :
// CHECK-NEXT: %k = ternary.linear %[[Q]], %[[S]], {{.*}} loc("k")

// A convolution: one scale for each image.
// CHECK: ternary.quantize %im axes 3
// CHECK: %c = ternary.conv %{{.*}}, %{{.*}}, %{{.*}} kernel [2, 2] strides [1, 1] pads [0, 0, 0, 0] dilations [1, 1] : {{.*}} loc("c")

// What stays float says why.
// CHECK: %d = dense.conv{{.*}} attributes {ternary.kept = "depthwise convolution (group = 4)"}
// CHECK: %s = dense.matmul{{.*}} attributes {ternary.kept = "both operands are activations"}
// CHECK: %t = dense.matmul{{.*}} attributes {ternary.kept = "K = 4 is below 16"}

// KEEP: ternary.linear
// KEEP: %k = dense.matmul{{.*}} attributes {ternary.kept = "asked to stay float"} : {{.*}} loc("k")
func.func @main(%x: tensor<?x16xf32, #store.dims<"B", "16">>, %im: tensor<1x4x3x3xf32>, %p: tensor<2x3x16xf32>, %r: tensor<2x4xf32>) -> (tensor<?x1xf32, #store.dims<"B", "1">>, tensor<?x1xf32, #store.dims<"B", "1">>, tensor<1x1x2x2xf32>, tensor<1x4x2x2xf32>, tensor<2x3x3xf32>, tensor<2x2xf32>) {
  %wq = store.constant value dense<[[1.0], [0.0], [-1.0], [1.0], [1.0], [0.0], [-1.0], [1.0], [1.0], [0.0], [-1.0], [1.0], [1.0], [0.0], [-1.0], [1.0]]> : tensor<16x1xf32> : tensor<16x1xf32>
  %wk = store.constant value dense<[[1.0, 0.0, -1.0, 2.0371, 1.0, 0.0, -1.0, 1.0, 1.0, 0.0, -1.0, 1.0, 1.0, 0.0, -1.0, 1.0]]> : tensor<1x16xf32> : tensor<1x16xf32>
  %b = store.constant value dense<0.5> : tensor<1xf32> : tensor<1xf32>
  %q = dense.matmul(%x, %wq, %b) {activation = #dense.activation<relu>} : (tensor<?x16xf32, #store.dims<"B", "16">>, tensor<16x1xf32>, tensor<1xf32>) -> tensor<?x1xf32, #store.dims<"B", "1">> loc("q")
  %k = dense.matmul(%x, %wk) {transpose_b} : (tensor<?x16xf32, #store.dims<"B", "16">>, tensor<1x16xf32>) -> tensor<?x1xf32, #store.dims<"B", "1">> loc("k")
  %wc = store.constant value dense<1.0> : tensor<1x4x2x2xf32> : tensor<1x4x2x2xf32>
  %c = dense.conv(%im, %wc) {strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1]} : (tensor<1x4x3x3xf32>, tensor<1x4x2x2xf32>) -> tensor<1x1x2x2xf32> loc("c")
  %wd = store.constant value dense<1.0> : tensor<4x1x2x2xf32> : tensor<4x1x2x2xf32>
  %d = dense.conv(%im, %wd) {strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1], group = 4} : (tensor<1x4x3x3xf32>, tensor<4x1x2x2xf32>) -> tensor<1x4x2x2xf32> loc("d")
  %s = dense.matmul(%p, %p) {transpose_b} : (tensor<2x3x16xf32>, tensor<2x3x16xf32>) -> tensor<2x3x3xf32> loc("s")
  %wt = store.constant value dense<1.0> : tensor<4x2xf32> : tensor<4x2xf32>
  %t = dense.matmul(%r, %wt) : (tensor<2x4xf32>, tensor<4x2xf32>) -> tensor<2x2xf32> loc("t")
  func.return %q, %k, %c, %d, %s, %t : tensor<?x1xf32, #store.dims<"B", "1">>, tensor<?x1xf32, #store.dims<"B", "1">>, tensor<1x1x2x2xf32>, tensor<1x4x2x2xf32>, tensor<2x3x3xf32>, tensor<2x2xf32>
}
