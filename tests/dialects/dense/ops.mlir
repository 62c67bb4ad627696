// RUN: neuc opt %s | filecheck %s

func.func @main(%x: tensor<?x4x8xf32, #store.dims<"B", "4", "8">>, %w: tensor<16x8xf32>, %b: tensor<16xf32>) -> tensor<?x4x16xf32, #store.dims<"B", "4", "16">> {
  // CHECK: %y = dense.matmul(%x, %w, %b) {transpose_b, alpha = 0.5, activation = #dense.activation<leaky_relu, 0.01>} : (tensor<?x4x8xf32, #store.dims<"B", "4", "8">>, tensor<16x8xf32>, tensor<16xf32>) -> tensor<?x4x16xf32, #store.dims<"B", "4", "16">>
  %y = dense.matmul(%x, %w, %b) {transpose_b, alpha = 0.5, activation = #dense.activation<leaky_relu, 0.01>} : (tensor<?x4x8xf32, #store.dims<"B", "4", "8">>, tensor<16x8xf32>, tensor<16xf32>) -> tensor<?x4x16xf32, #store.dims<"B", "4", "16">>
  // CHECK-NEXT: dense.map(%y, %b) : (tensor<?x4x16xf32, #store.dims<"B", "4", "16">>, tensor<16xf32>) -> tensor<?x4x16xf32, #store.dims<"B", "4", "16">> {
  // CHECK-NEXT: ^bb0(%p: f32, %q: f32):
  // CHECK-NEXT: %s = arith.addf %p, %q : f32
  // CHECK-NEXT: dense.yield %s : f32
  // CHECK-NEXT: }
  %z = dense.map(%y, %b) : (tensor<?x4x16xf32, #store.dims<"B", "4", "16">>, tensor<16xf32>) -> tensor<?x4x16xf32, #store.dims<"B", "4", "16">> {
  ^bb0(%p: f32, %q: f32):
    %s = arith.addf %p, %q : f32
    dense.yield %s : f32
  }
  // CHECK-NEXT: dense.reduce(%z) {kind = mean, axes = [1, 2], keepdims}
  %r = dense.reduce(%z) {kind = mean, axes = [1, 2], keepdims} : (tensor<?x4x16xf32, #store.dims<"B", "4", "16">>) -> tensor<?x1x1xf32, #store.dims<"B", "1", "1">>
  // CHECK-NEXT: dense.arg_reduce(%z) {kind = max, axis = 2, select_last}
  %m = dense.arg_reduce(%z) {kind = max, axis = 2, select_last} : (tensor<?x4x16xf32, #store.dims<"B", "4", "16">>) -> tensor<?x4xi64, #store.dims<"B", "4">>
  // CHECK-NEXT: dense.softmax(%z) {axis = 2, log}
  %t = dense.softmax(%z) {axis = 2, log} : (tensor<?x4x16xf32, #store.dims<"B", "4", "16">>) -> tensor<?x4x16xf32, #store.dims<"B", "4", "16">>
  // CHECK-NEXT: dense.layer_norm(%t, %b) {axis = 2, eps = 1.0e-05, rms}
  %u = dense.layer_norm(%t, %b) {axis = 2, eps = 1.0e-05, rms} : (tensor<?x4x16xf32, #store.dims<"B", "4", "16">>, tensor<16xf32>) -> tensor<?x4x16xf32, #store.dims<"B", "4", "16">>
  // CHECK-NEXT: dense.slice(%u) {starts = ["B - 1", "3", "0"], steps = [1, -1, 2]}
  %v = dense.slice(%u) {starts = ["B - 1", "3", "0"], steps = [1, -1, 2]} : (tensor<?x4x16xf32, #store.dims<"B", "4", "16">>) -> tensor<1x4x8xf32>
  // CHECK-NEXT: dense.dims() {exprs = ["B*4", "16"]} : () -> tensor<2xi64>
  %d = dense.dims() {exprs = ["B*4", "16"]} : () -> tensor<2xi64>
  // CHECK-NEXT: dense.iota() : () -> tensor<?xi64, #store.dims<"B">>
  %iota = dense.iota() : () -> tensor<?xi64, #store.dims<"B">>
  // CHECK-NEXT: dense.pad(%v) {pads = [0, 1, 1, 0, 0, 2], mode = reflect} : (tensor<1x4x8xf32>) -> tensor<1x5x11xf32>
  %e = dense.pad(%v) {pads = [0, 1, 1, 0, 0, 2], mode = reflect} : (tensor<1x4x8xf32>) -> tensor<1x5x11xf32>
  // CHECK-NEXT: dense.pad(%v) {pads = [0, 0, 0, 0, 0, 1], value = -inf} : (tensor<1x4x8xf32>) -> tensor<1x4x9xf32>
  %f = dense.pad(%v) {pads = [0, 0, 0, 0, 0, 1], value = -inf} : (tensor<1x4x8xf32>) -> tensor<1x4x9xf32>
  // CHECK-NEXT: dense.concat(%e, %e) {axis = 0} : (tensor<1x5x11xf32>, tensor<1x5x11xf32>) -> tensor<2x5x11xf32>
  %g = dense.concat(%e, %e) {axis = 0} : (tensor<1x5x11xf32>, tensor<1x5x11xf32>) -> tensor<2x5x11xf32>
  // CHECK-NEXT: dense.transpose(%g) {perm = [2, 0, 1]} : (tensor<2x5x11xf32>) -> tensor<11x2x5xf32>
  %h = dense.transpose(%g) {perm = [2, 0, 1]} : (tensor<2x5x11xf32>) -> tensor<11x2x5xf32>
  // CHECK-NEXT: dense.broadcast(%b) : (tensor<16xf32>) -> tensor<3x16xf32>
  %i = dense.broadcast(%b) : (tensor<16xf32>) -> tensor<3x16xf32>
  // CHECK-NEXT: dense.gather(%i, %d) {axis = 0} : (tensor<3x16xf32>, tensor<2xi64>) -> tensor<2x16xf32>
  %j = dense.gather(%i, %d) {axis = 0} : (tensor<3x16xf32>, tensor<2xi64>) -> tensor<2x16xf32>
  // CHECK-NEXT: dense.reshape(%j) : (tensor<2x16xf32>) -> tensor<4x8xf32>
  %k = dense.reshape(%j) : (tensor<2x16xf32>) -> tensor<4x8xf32>
  func.return %z : tensor<?x4x16xf32, #store.dims<"B", "4", "16">>
}

// CHECK-LABEL: func.func @image
func.func @image(%x: tensor<2x3x8x9xf32>, %w: tensor<6x1x3x3xf32>, %b: tensor<6xf32>) -> tensor<2x6x2x2xf32> {
  // CHECK: dense.conv(%x, %w, %b) {strides = [2, 2], pads = [1, 1, 1, 1], dilations = [1, 1], group = 3, activation = #dense.activation<clip, 0.0, 6.0>} : (tensor<2x3x8x9xf32>, tensor<6x1x3x3xf32>, tensor<6xf32>) -> tensor<2x6x4x5xf32>
  %y = dense.conv(%x, %w, %b) {strides = [2, 2], pads = [1, 1, 1, 1], dilations = [1, 1], group = 3, activation = #dense.activation<clip, 0.0, 6.0>} : (tensor<2x3x8x9xf32>, tensor<6x1x3x3xf32>, tensor<6xf32>) -> tensor<2x6x4x5xf32>
  // CHECK-NEXT: dense.pool(%y) {kind = avg, kernel = [3, 4], strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1], count_include_pad} : (tensor<2x6x4x5xf32>) -> tensor<2x6x2x2xf32>
  %z = dense.pool(%y) {kind = avg, kernel = [3, 4], strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1], count_include_pad} : (tensor<2x6x4x5xf32>) -> tensor<2x6x2x2xf32>
  func.return %z : tensor<2x6x2x2xf32>
}

// CHECK-LABEL: func.func @recurrent
func.func @recurrent(%x: tensor<7x1x5xf32>, %w: tensor<2x12x5xf32>, %r: tensor<2x12x3xf32>) -> tensor<7x2x1x3xf32> {
  // CHECK: %y, %h, %c = dense.lstm(%x, %w, %r) {hidden = 3, direction = bidirectional} : (tensor<7x1x5xf32>, tensor<2x12x5xf32>, tensor<2x12x3xf32>) -> (tensor<7x2x1x3xf32>, tensor<2x1x3xf32>, tensor<2x1x3xf32>)
  %y, %h, %c = dense.lstm(%x, %w, %r) {hidden = 3, direction = bidirectional} : (tensor<7x1x5xf32>, tensor<2x12x5xf32>, tensor<2x12x3xf32>) -> (tensor<7x2x1x3xf32>, tensor<2x1x3xf32>, tensor<2x1x3xf32>)
  func.return %y : tensor<7x2x1x3xf32>
}

// CHECK-LABEL: func.func @decoder
func.func @decoder(%x: tensor<?x4x8xf32, #store.dims<"S", "4", "8">>, %k: tensor<?x2x8xf32, #store.dims<"S", "2", "8">>, %c: tensor<?x4xf32, #store.dims<"S", "4">>, %g: tensor<8xf32>, %p: tensor<i64>, %k0: tensor<2x?x8x16xf16, #store.dims<"2", "C", "8", "16">>, %v0: tensor<2x?x16x8xf16, #store.dims<"2", "C", "16", "8">>) -> tensor<?x4x8xf32, #store.dims<"S", "4", "8">> {
  // CHECK: dense.layer_norm(%x, %g) {axis = 2, eps = 1.0e-05, rms} : (tensor<?x4x8xf32, #store.dims<"S", "4", "8">>, tensor<8xf32>) -> tensor<?x4x8xf32, #store.dims<"S", "4", "8">>
  %n = dense.layer_norm(%x, %g) {axis = 2, eps = 1.0e-05, rms} : (tensor<?x4x8xf32, #store.dims<"S", "4", "8">>, tensor<8xf32>) -> tensor<?x4x8xf32, #store.dims<"S", "4", "8">>
  // CHECK-NEXT: dense.rotary(%n, %c, %c) {interleaved} : (tensor<?x4x8xf32, #store.dims<"S", "4", "8">>, tensor<?x4xf32, #store.dims<"S", "4">>, tensor<?x4xf32, #store.dims<"S", "4">>) -> tensor<?x4x8xf32, #store.dims<"S", "4", "8">>
  %q = dense.rotary(%n, %c, %c) {interleaved} : (tensor<?x4x8xf32, #store.dims<"S", "4", "8">>, tensor<?x4xf32, #store.dims<"S", "4">>, tensor<?x4xf32, #store.dims<"S", "4">>) -> tensor<?x4x8xf32, #store.dims<"S", "4", "8">>
  // CHECK-NEXT: %k1, %v1 = dense.cache_append(%k0, %v0, %k, %k, %p) : (tensor<2x?x8x16xf16, #store.dims<"2", "C", "8", "16">>, tensor<2x?x16x8xf16, #store.dims<"2", "C", "16", "8">>, tensor<?x2x8xf32, #store.dims<"S", "2", "8">>, tensor<?x2x8xf32, #store.dims<"S", "2", "8">>, tensor<i64>) -> (tensor<2x?x8x16xf16, #store.dims<"2", "C", "8", "16">>, tensor<2x?x16x8xf16, #store.dims<"2", "C", "16", "8">>)
  %k1, %v1 = dense.cache_append(%k0, %v0, %k, %k, %p) : (tensor<2x?x8x16xf16, #store.dims<"2", "C", "8", "16">>, tensor<2x?x16x8xf16, #store.dims<"2", "C", "16", "8">>, tensor<?x2x8xf32, #store.dims<"S", "2", "8">>, tensor<?x2x8xf32, #store.dims<"S", "2", "8">>, tensor<i64>) -> (tensor<2x?x8x16xf16, #store.dims<"2", "C", "8", "16">>, tensor<2x?x16x8xf16, #store.dims<"2", "C", "16", "8">>)
  // CHECK-NEXT: dense.attention(%q, %k1, %v1, %p) {scale = 0.35355338} : (tensor<?x4x8xf32, #store.dims<"S", "4", "8">>, tensor<2x?x8x16xf16, #store.dims<"2", "C", "8", "16">>, tensor<2x?x16x8xf16, #store.dims<"2", "C", "16", "8">>, tensor<i64>) -> tensor<?x4x8xf32, #store.dims<"S", "4", "8">>
  %a = dense.attention(%q, %k1, %v1, %p) {scale = 0.35355338} : (tensor<?x4x8xf32, #store.dims<"S", "4", "8">>, tensor<2x?x8x16xf16, #store.dims<"2", "C", "8", "16">>, tensor<2x?x16x8xf16, #store.dims<"2", "C", "16", "8">>, tensor<i64>) -> tensor<?x4x8xf32, #store.dims<"S", "4", "8">>
  func.return %a : tensor<?x4x8xf32, #store.dims<"S", "4", "8">>
}
