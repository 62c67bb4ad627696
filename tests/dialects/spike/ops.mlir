// RUN: neuc opt %s | filecheck %s
// RUN: neuc opt %s | neuc opt - | filecheck %s

// CHECK: func.func @neurons
func.func @neurons(%i: tensor<2x3xf32>, %a: tensor<2x3xf32>, %b: tensor<2x3xf32>, %p: tensor<3xf32>, %q: tensor<f32>, %n: tensor<2x3xi32>, %nt: tensor<3xi32>) {
  // CHECK: %s0, %v0 = spike.lif(%i, %a, %p, %q) : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<3xf32>, tensor<f32>) -> (tensor<2x3x!spike.event<binary>>, tensor<2x3xf32>)
  %s0, %v0 = spike.lif(%i, %a, %p, %q) : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<3xf32>, tensor<f32>) -> (tensor<2x3x!spike.event<binary>>, tensor<2x3xf32>)
  // CHECK-NEXT: spike.lif(%i, %a, %p, %q, %q) {reset = hard, fire = gt}
  %s1, %v1 = spike.lif(%i, %a, %p, %q, %q) {reset = hard, fire = gt} : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<3xf32>, tensor<f32>, tensor<f32>) -> (tensor<2x3x!spike.event<binary>>, tensor<2x3xf32>)
  // CHECK-NEXT: spike.cuba_lif(%i, %a, %b, %p, %p, %q, %q) {reads = old}
  %s2, %c2, %v2 = spike.cuba_lif(%i, %a, %b, %p, %p, %q, %q) {reads = old} : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<f32>, tensor<f32>) -> (tensor<2x3x!spike.event<binary>>, tensor<2x3xf32>, tensor<2x3xf32>)
  // CHECK-NEXT: spike.alpha(%i, %a, %b, %p, %p, %q, %q)
  %s3, %e3, %h3 = spike.alpha(%i, %a, %b, %p, %p, %q, %q) : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<f32>, tensor<f32>) -> (tensor<2x3x!spike.event<binary>>, tensor<2x3xf32>, tensor<2x3xf32>)
  // CHECK-NEXT: spike.adaptive(%i, %a, %b, %p, %p, %q, %q)
  %s4, %v4, %a4 = spike.adaptive(%i, %a, %b, %p, %p, %q, %q) : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<f32>, tensor<f32>) -> (tensor<2x3x!spike.event<binary>>, tensor<2x3xf32>, tensor<2x3xf32>)
  // CHECK-NEXT: spike.integrator(%i, %a) : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  %v5 = spike.integrator(%i, %a) : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK-NEXT: spike.li(%i, %a, %p)
  %v6 = spike.li(%i, %a, %p) : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK-NEXT: spike.cuba_li(%i, %a, %b, %p, %p, %q)
  %c7, %v7 = spike.cuba_li(%i, %a, %b, %p, %p, %q) : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<f32>) -> (tensor<2x3xf32>, tensor<2x3xf32>)
  // CHECK-NEXT: spike.threshold(%i, %p) {fire = gt} : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3x!spike.event<binary>>
  %s8 = spike.threshold(%i, %p) {fire = gt} : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3x!spike.event<binary>>
  // CHECK-NEXT: spike.if(%n, %n, %nt) : (tensor<2x3xi32>, tensor<2x3xi32>, tensor<3xi32>)
  %s9, %v9 = spike.if(%n, %n, %nt) : (tensor<2x3xi32>, tensor<2x3xi32>, tensor<3xi32>) -> (tensor<2x3x!spike.event<binary>>, tensor<2x3xi32>)
  // CHECK-NEXT: spike.multi_threshold(%i, %a, %b, %q) {relu} : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<f32>) -> (tensor<2x3x!spike.event<graded, 4>>, tensor<2x3xf32>, tensor<2x3xf32>)
  %s10, %m10, %o10 = spike.multi_threshold(%i, %a, %b, %q) {relu} : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<f32>) -> (tensor<2x3x!spike.event<graded, 4>>, tensor<2x3xf32>, tensor<2x3xf32>)
  // CHECK-NEXT: spike.multi_threshold(%n, %n, %n, %nt) {fire_at = 1.0}
  %s11, %m11, %o11 = spike.multi_threshold(%n, %n, %n, %nt) {fire_at = 1.0} : (tensor<2x3xi32>, tensor<2x3xi32>, tensor<2x3xi32>, tensor<3xi32>) -> (tensor<2x3x!spike.event<signed>>, tensor<2x3xi32>, tensor<2x3xi32>)
  func.return
}

// CHECK: func.func @synapses
func.func @synapses(%s: tensor<2x4x6x8x!spike.event<binary>>, %w: tensor<6x2x3x3xf32>, %wi: tensor<6x2x3x3xi8>, %bi: tensor<6xi32>, %p: tensor<4x1x1xf32>, %l: tensor<5x8xi8>, %i: tensor<2x4x6x8xi32>) {
  // CHECK: spike.conv(%s, %w) {strides = [1, 2], pads = [1, 0, 1, 0], dilations = [1, 1], group = 2}
  %c0 = spike.conv(%s, %w) {strides = [1, 2], pads = [1, 0, 1, 0], dilations = [1, 1], group = 2} : (tensor<2x4x6x8x!spike.event<binary>>, tensor<6x2x3x3xf32>) -> tensor<2x6x6x3xf32>
  // CHECK-NEXT: spike.conv(%s, %wi, %bi)
  %c1 = spike.conv(%s, %wi, %bi) {strides = [1, 2], pads = [1, 0, 1, 0], dilations = [1, 1], group = 2} : (tensor<2x4x6x8x!spike.event<binary>>, tensor<6x2x3x3xi8>, tensor<6xi32>) -> tensor<2x6x6x3xi32>
  // CHECK-NEXT: spike.scale(%s, %p)
  %c2 = spike.scale(%s, %p) : (tensor<2x4x6x8x!spike.event<binary>>, tensor<4x1x1xf32>) -> tensor<2x4x6x8xf32>
  // CHECK-NEXT: spike.linear(%i, %l)
  %c3 = spike.linear(%i, %l) : (tensor<2x4x6x8xi32>, tensor<5x8xi8>) -> tensor<2x4x6x5xi32>
  // CHECK-NEXT: spike.sum_pool(%s) {kernel = [2, 3], strides = [2, 2], pads = [0, 1, 0, 1]}
  %c4 = spike.sum_pool(%s) {kernel = [2, 3], strides = [2, 2], pads = [0, 1, 0, 1]} : (tensor<2x4x6x8x!spike.event<binary>>) -> tensor<2x4x3x4xi32>
  // CHECK-NEXT: spike.max_pool(%i, %i) {kernel = [2, 2], strides = [2, 2], pads = [0, 0, 0, 0]}
  %c5, %t5 = spike.max_pool(%i, %i) {kernel = [2, 2], strides = [2, 2], pads = [0, 0, 0, 0]} : (tensor<2x4x6x8xi32>, tensor<2x4x6x8xi32>) -> (tensor<2x4x3x4xi32>, tensor<2x4x6x8xi32>)
  func.return
}

// CHECK: func.func @coders
func.func @coders(%x: tensor<2x3xf32>, %q: tensor<f32>, %t: tensor<i64>, %f: tensor<2x3xi32>) {
  // CHECK: spike.encode_rate(%x, %t) {seed = 7}
  %s0 = spike.encode_rate(%x, %t) {seed = 7} : (tensor<2x3xf32>, tensor<i64>) -> tensor<2x3x!spike.event<binary>>
  // CHECK-NEXT: spike.encode_latency(%x, %t) {steps = 8}
  %s1 = spike.encode_latency(%x, %t) {steps = 8} : (tensor<2x3xf32>, tensor<i64>) -> tensor<2x3x!spike.event<binary>>
  // CHECK-NEXT: spike.encode_delta(%x, %x, %q)
  %s2, %r2 = spike.encode_delta(%x, %x, %q) : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<f32>) -> (tensor<2x3x!spike.event<signed>>, tensor<2x3xf32>)
  // CHECK-NEXT: spike.first_spike(%s0, %f, %t)
  %f3 = spike.first_spike(%s0, %f, %t) : (tensor<2x3x!spike.event<binary>>, tensor<2x3xi32>, tensor<i64>) -> tensor<2x3xi32>
  // CHECK-NEXT: spike.accumulate(%s0, %f)
  %n4 = spike.accumulate(%s0, %f) : (tensor<2x3x!spike.event<binary>>, tensor<2x3xi32>) -> tensor<2x3xi32>
  // CHECK-NEXT: spike.differential(%x, %x, %x, %x, %x, %t, %q) {relu}
  %s5, %m5, %o5, %i5, %j5 = spike.differential(%x, %x, %x, %x, %x, %t, %q) {relu} : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<i64>, tensor<f32>) -> (tensor<2x3x!spike.event<graded, 4>>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>)
  // CHECK-NEXT: spike.expectation(%x, %s0, %x, %x, %x, %t) {form = differential} :
  // CHECK-SAME: {
  // CHECK-NEXT: ^f(%a: tensor<2x3xf32>, %b: tensor<2x3xf32>):
  %y6, %ta6, %tb6, %l6 = spike.expectation(%x, %s0, %x, %x, %x, %t) {form = differential} : (tensor<2x3xf32>, tensor<2x3x!spike.event<binary>>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<i64>) -> (tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>) {
  ^f(%a: tensor<2x3xf32>, %b: tensor<2x3xf32>):
    %m = dense.softmax(%a) {axis = 1} : (tensor<2x3xf32>) -> tensor<2x3xf32>
    // CHECK: spike.yield outputs(%m) states() : (tensor<2x3xf32>), ()
    spike.yield outputs(%m) states() : (tensor<2x3xf32>), ()
  }
  func.return
}
