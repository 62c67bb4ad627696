// RUN: neuc opt %s --split-input-file --verify-diagnostics | filecheck %s

// CHECK: a has K = 8 columns but b has K = 7 rows
func.func @main(%a: tensor<4x8xf32>, %b: tensor<7x5xf32>) {
  %y = dense.matmul(%a, %b) : (tensor<4x8xf32>, tensor<7x5xf32>) -> tensor<4x5xf32>
  func.return
}

// -----

// CHECK: result has shape [4, 6], should have [4, 5]
func.func @main(%a: tensor<4x8xf32>, %b: tensor<8x5xf32>) {
  %y = dense.matmul(%a, %b) : (tensor<4x8xf32>, tensor<8x5xf32>) -> tensor<4x6xf32>
  func.return
}

// -----

// CHECK: bias of shape [4] does not broadcast to [4, 5]
func.func @main(%a: tensor<4x8xf32>, %b: tensor<8x5xf32>, %c: tensor<4xf32>) {
  %y = dense.matmul(%a, %b, %c) : (tensor<4x8xf32>, tensor<8x5xf32>, tensor<4xf32>) -> tensor<4x5xf32>
  func.return
}

// -----

// CHECK: a has rank 1, a matrix needs 2
func.func @main(%a: tensor<8xf32>, %b: tensor<8x5xf32>) {
  %y = dense.matmul(%a, %b) : (tensor<8xf32>, tensor<8x5xf32>) -> tensor<5xf32>
  func.return
}

// -----

// CHECK: x has 3 channels but w takes 2 in each of 1 groups
func.func @main(%x: tensor<1x3x8xf32>, %w: tensor<4x2x3xf32>) {
  %y = dense.conv(%x, %w) {strides = [1], pads = [0, 0], dilations = [1]} : (tensor<1x3x8xf32>, tensor<4x2x3xf32>) -> tensor<1x4x6xf32>
  func.return
}

// -----

// CHECK: result has shape [1, 4, 8], should have [1, 4, 6]
func.func @main(%x: tensor<1x2x8xf32>, %w: tensor<4x2x3xf32>) {
  %y = dense.conv(%x, %w) {strides = [1], pads = [0, 0], dilations = [1]} : (tensor<1x2x8xf32>, tensor<4x2x3xf32>) -> tensor<1x4x8xf32>
  func.return
}

// -----

// CHECK: 1 spatial axes, but 1 strides, 1 pads (begins then ends) and 1 dilations
func.func @main(%x: tensor<1x2x8xf32>, %w: tensor<4x2x3xf32>) {
  %y = dense.conv(%x, %w) {strides = [1], pads = [0], dilations = [1]} : (tensor<1x2x8xf32>, tensor<4x2x3xf32>) -> tensor<1x4x6xf32>
  func.return
}

// -----

// CHECK: result has 9 windows on spatial axis 0, fitting are 3
func.func @main(%x: tensor<1x2x8xf32>) {
  %y = dense.pool(%x) {kind = max, kernel = [3], strides = [2], pads = [0, 0], dilations = [1]} : (tensor<1x2x8xf32>) -> tensor<1x2x9xf32>
  func.return
}

// -----

// CHECK: sizes 3 and 4 do not broadcast
func.func @main(%a: tensor<3xf32>, %b: tensor<4xf32>) {
  %y = dense.map(%a, %b) : (tensor<3xf32>, tensor<4xf32>) -> tensor<4xf32> {
  ^bb0(%p: f32, %q: f32):
    dense.yield %p : f32
  }
  func.return
}

// -----

// CHECK: body takes (f64) but the inputs' elements are (f32)
func.func @main(%a: tensor<3xf32>) {
  %y = dense.map(%a) : (tensor<3xf32>) -> tensor<3xf32> {
  ^bb0(%p: f64):
    dense.yield %p : f64
  }
  func.return
}

// -----

// CHECK: body yields f32 for a result of i1
func.func @main(%a: tensor<3xf32>) {
  %y = dense.map(%a) : (tensor<3xf32>) -> tensor<3xi1> {
  ^bb0(%p: f32):
    dense.yield %p : f32
  }
  func.return
}

// -----

// CHECK: axes [1, 0] are not sorted and distinct
func.func @main(%a: tensor<3x2xf32>) {
  %y = dense.reduce(%a) {kind = sum, axes = [1, 0]} : (tensor<3x2xf32>) -> tensor<f32>
  func.return
}

// -----

// CHECK: axes: 2 is not an axis of a tensor of rank 2
func.func @main(%a: tensor<3x2xf32>) {
  %y = dense.reduce(%a) {kind = sum, axes = [2]} : (tensor<3x2xf32>) -> tensor<3xf32>
  func.return
}

// -----

// CHECK: kind is sum, must be max or min
func.func @main(%a: tensor<3x2xf32>) {
  %y = dense.arg_reduce(%a) {kind = sum, axis = 0} : (tensor<3x2xf32>) -> tensor<2xi64>
  func.return
}

// -----

// CHECK: scale of shape [3] does not broadcast to [4]
func.func @main(%a: tensor<3x4xf32>, %s: tensor<3xf32>) {
  %y = dense.layer_norm(%a, %s) {axis = 1, eps = 0.1} : (tensor<3x4xf32>, tensor<3xf32>) -> tensor<3x4xf32>
  func.return
}

// -----

// CHECK: x has 2*B elements but the result has 2*B + 1
func.func @main(%a: tensor<?x2xf32, #store.dims<"B", "2">>) {
  %y = dense.reshape(%a) : (tensor<?x2xf32, #store.dims<"B", "2">>) -> tensor<?xf32, #store.dims<"2*B + 1">>
  func.return
}

// -----

// CHECK: perm [0, 0] is no permutation of 2 axes
func.func @main(%a: tensor<3x2xf32>) {
  %y = dense.transpose(%a) {perm = [0, 0]} : (tensor<3x2xf32>) -> tensor<3x3xf32>
  func.return
}

// -----

// CHECK: elements 2 to 4 of axis 0, which has 4
func.func @main(%a: tensor<4xf32>) {
  %y = dense.slice(%a) {starts = ["2"], steps = [1]} : (tensor<4xf32>) -> tensor<3xf32>
  func.return
}

// -----

// CHECK: x of shape [2] does not broadcast to [3]
func.func @main(%a: tensor<2xf32>) {
  %y = dense.broadcast(%a) : (tensor<2xf32>) -> tensor<3xf32>
  func.return
}

// -----

// CHECK: result has shape [5], should have [4]
func.func @main(%a: tensor<2xf32>) {
  %y = dense.concat(%a, %a) {axis = 0} : (tensor<2xf32>, tensor<2xf32>) -> tensor<5xf32>
  func.return
}

// -----

// CHECK: pads [1, -1] are not 2 sizes of at least 0
func.func @main(%a: tensor<2xf32>) {
  %y = dense.pad(%a) {pads = [1, -1]} : (tensor<2xf32>) -> tensor<2xf32>
  func.return
}

// -----

// CHECK: indices are f32, must be i32 or i64
func.func @main(%a: tensor<2xf32>) {
  %y = dense.gather(%a, %a) {axis = 0} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  func.return
}

// -----

// CHECK: result has rank 2, should have 1
func.func @main() {
  %y = dense.iota() : () -> tensor<2x1xi64>
  func.return
}

// -----

// CHECK: result has shape [1], should have [2]
func.func @main() {
  %y = dense.dims() {exprs = ["1", "2"]} : () -> tensor<1xi64>
  func.return
}

// -----

// CHECK: r has shape [1, 12, 4], should have [1, 12, 3]
func.func @main(%x: tensor<7x1x5xf32>, %w: tensor<1x12x5xf32>, %r: tensor<1x12x4xf32>) {
  %y, %h, %c = dense.lstm(%x, %w, %r) {hidden = 3} : (tensor<7x1x5xf32>, tensor<1x12x5xf32>, tensor<1x12x4xf32>) -> (tensor<7x1x1x3xf32>, tensor<1x1x3xf32>, tensor<1x1x3xf32>)
  func.return
}

// -----

// CHECK: activation clip takes 2 parameters, got 1
func.func @main(%a: tensor<4x8xf32>) {
  %y = dense.matmul(%a, %a) {transpose_b, activation = #dense.activation<clip, 1.0>} : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x4xf32>
  func.return
}

// -----

// CHECK: holds f64, should hold f32
func.func @main(%a: tensor<4xf64>) {
  %y = dense.softmax(%a) {axis = 0} : (tensor<4xf64>) -> tensor<4xf64>
  func.return
}

// -----

// CHECK: x has heads of 5 elements, which do not make pairs
func.func @main(%x: tensor<2x4x5xf32>, %c: tensor<2x2xf32>) {
  %y = dense.rotary(%x, %c, %c) : (tensor<2x4x5xf32>, tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x4x5xf32>
  func.return
}

// -----

// CHECK: cos has shape [2, 6], should have [2, 3]
func.func @main(%x: tensor<2x4x6xf32>, %c: tensor<2x6xf32>) {
  %y = dense.rotary(%x, %c, %c) : (tensor<2x4x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>) -> tensor<2x4x6xf32>
  func.return
}

// -----

// CHECK: k_cache holds f64, must hold f16, f32 or i8
func.func @main(%q: tensor<2x4x6xf32>, %k: tensor<2x3x6x16xf64>, %v: tensor<2x3x16x6xf64>, %p: tensor<i64>) {
  %y = dense.attention(%q, %k, %v, %p) {scale = 1.0} : (tensor<2x4x6xf32>, tensor<2x3x6x16xf64>, tensor<2x3x16x6xf64>, tensor<i64>) -> tensor<2x4x6xf32>
  func.return
}

// -----

// CHECK: v_cache has shape [2, 3, 6, 16], should have [2, 3, 16, 6]
func.func @main(%q: tensor<2x4x6xf32>, %k: tensor<2x3x6x16xf16>, %p: tensor<i64>) {
  %y = dense.attention(%q, %k, %k, %p) {scale = 1.0} : (tensor<2x4x6xf32>, tensor<2x3x6x16xf16>, tensor<2x3x6x16xf16>, tensor<i64>) -> tensor<2x4x6xf32>
  func.return
}

// -----

// CHECK: 5 heads of q are no multiple of the 2 heads of the caches
func.func @main(%q: tensor<2x5x6xf32>, %k: tensor<2x3x6x16xf16>, %v: tensor<2x3x16x6xf16>, %p: tensor<i64>) {
  %y = dense.attention(%q, %k, %v, %p) {scale = 1.0} : (tensor<2x5x6xf32>, tensor<2x3x6x16xf16>, tensor<2x3x16x6xf16>, tensor<i64>) -> tensor<2x5x6xf32>
  func.return
}

// -----

// CHECK: v has shape [2, 1, 6], should have [2, 2, 6]
func.func @main(%a: tensor<2x2x6xf32>, %b: tensor<2x1x6xf32>, %k: tensor<2x3x6x16xf16>, %v: tensor<2x3x16x6xf16>, %p: tensor<i64>) {
  %y, %z = dense.cache_append(%k, %v, %a, %b, %p) : (tensor<2x3x6x16xf16>, tensor<2x3x16x6xf16>, tensor<2x2x6xf32>, tensor<2x1x6xf32>, tensor<i64>) -> (tensor<2x3x6x16xf16>, tensor<2x3x16x6xf16>)
  func.return
}

// -----

// CHECK: position holds i32, should hold i64
func.func @main(%a: tensor<2x2x6xf32>, %k: tensor<2x3x6x16xf16>, %v: tensor<2x3x16x6xf16>, %p: tensor<i32>) {
  %y, %z = dense.cache_append(%k, %v, %a, %a, %p) : (tensor<2x3x6x16xf16>, tensor<2x3x16x6xf16>, tensor<2x2x6xf32>, tensor<2x2x6xf32>, tensor<i32>) -> (tensor<2x3x6x16xf16>, tensor<2x3x16x6xf16>)
  func.return
}
