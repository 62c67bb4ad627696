// RUN: neuc opt %s --split-input-file --verify-diagnostics | filecheck %s

// CHECK: operand 0 holds !spike.event<binary>: only synapses and decoders take spikes
func.func @main(%s: tensor<4x8x!spike.event<binary>>, %w: tensor<8x5xf32>) {
  %y = dense.matmul(%s, %w) : (tensor<4x8x!spike.event<binary>>, tensor<8x5xf32>) -> tensor<4x5xf32>
  func.return
}

// -----

// CHECK: events holds f32, should hold !spike.event<binary>
func.func @main(%i: tensor<4xf32>, %q: tensor<f32>) {
  %s, %v = spike.if(%i, %i, %q) : (tensor<4xf32>, tensor<4xf32>, tensor<f32>) -> (tensor<4xf32>, tensor<4xf32>)
  func.return
}

// -----

// CHECK: threshold of shape [3] does not broadcast to [4]
func.func @main(%i: tensor<4xf32>, %q: tensor<3xf32>) {
  %s, %v = spike.if(%i, %i, %q) : (tensor<4xf32>, tensor<4xf32>, tensor<3xf32>) -> (tensor<4x!spike.event<binary>>, tensor<4xf32>)
  func.return
}

// -----

// CHECK: potential holds i32, should hold f32
func.func @main(%i: tensor<4xf32>, %v: tensor<4xi32>, %q: tensor<f32>) {
  %s, %v2 = spike.if(%i, %v, %q) : (tensor<4xf32>, tensor<4xi32>, tensor<f32>) -> (tensor<4x!spike.event<binary>>, tensor<4xi32>)
  func.return
}

// -----

// CHECK: current holds i32, should hold f32
func.func @main(%i: tensor<4xi32>, %q: tensor<i32>) {
  %s, %a, %b = spike.alpha(%i, %i, %i, %q, %q, %q, %q) : (tensor<4xi32>, tensor<4xi32>, tensor<4xi32>, tensor<i32>, tensor<i32>, tensor<i32>, tensor<i32>) -> (tensor<4x!spike.event<binary>>, tensor<4xi32>, tensor<4xi32>)
  func.return
}

// -----

// CHECK: graded events have 1 to 7 levels, not 8
func.func @main(%s: tensor<4x!spike.event<graded, 8>>) {
  func.return
}

// -----

// CHECK: events are !spike.event<binary>, should be signed or graded
func.func @main(%i: tensor<4xf32>, %q: tensor<f32>) {
  %s, %m, %o = spike.multi_threshold(%i, %i, %i, %q) : (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<f32>) -> (tensor<4x!spike.event<binary>>, tensor<4xf32>, tensor<4xf32>)
  func.return
}

// -----

// CHECK: fire_at = 0.30000001192092896 is no positive multiple of 1/4
func.func @main(%i: tensor<4xf32>, %q: tensor<f32>) {
  %s, %m, %o = spike.multi_threshold(%i, %i, %i, %q) {fire_at = 0.3} : (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<f32>) -> (tensor<4x!spike.event<signed>>, tensor<4xf32>, tensor<4xf32>)
  func.return
}

// -----

// CHECK: x has K = 4 inputs but weight takes 5
func.func @main(%s: tensor<2x4x!spike.event<binary>>, %w: tensor<3x5xf32>) {
  %i = spike.linear(%s, %w) : (tensor<2x4x!spike.event<binary>>, tensor<3x5xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: x holds f32: weights in i8 take events, i8 or i32
func.func @main(%s: tensor<2x4xf32>, %w: tensor<3x4xi8>) {
  %i = spike.linear(%s, %w) : (tensor<2x4xf32>, tensor<3x4xi8>) -> tensor<2x3xi32>
  func.return
}

// -----

// CHECK: current holds f32, should hold i32
func.func @main(%s: tensor<2x4x!spike.event<binary>>, %w: tensor<3x4xi8>) {
  %i = spike.linear(%s, %w) : (tensor<2x4x!spike.event<binary>>, tensor<3x4xi8>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: x has 4 channels but weight takes 3 in each of 2 groups
func.func @main(%s: tensor<2x4x5x!spike.event<binary>>, %w: tensor<6x3x3xf32>) {
  %i = spike.conv(%s, %w) {strides = [1], pads = [0, 0], dilations = [1], group = 2} : (tensor<2x4x5x!spike.event<binary>>, tensor<6x3x3xf32>) -> tensor<2x6x3xf32>
  func.return
}

// -----

// CHECK: steps = 0, should be at least 1
func.func @main(%x: tensor<4xf32>) {
  %y = spike.loop scan() init(%x) : (), (tensor<4xf32>) steps 0 -> () {
  ^step(%t: tensor<i64>, %v: tensor<4xf32>):
    spike.yield outputs() states(%v) : (), (tensor<4xf32>)
  }
  func.return
}

// -----

// CHECK: scanned operand 0 has shape [7, 4], should have 8 steps first
func.func @main(%x: tensor<7x4xf32>) {
  spike.loop scan(%x) init() : (tensor<7x4xf32>), () steps 8 -> () {
  ^step(%t: tensor<i64>, %v: tensor<4xf32>):
    spike.yield outputs() states() : (), ()
  }
  func.return
}

// -----

// CHECK: there are 0 yielded states, should be 1
func.func @main(%x: tensor<4xf32>) {
  %y = spike.loop scan() init(%x) : (), (tensor<4xf32>) steps 2 -> () {
  ^step(%t: tensor<i64>, %v: tensor<4xf32>):
    spike.yield outputs() states() : (), ()
  }
  func.return
}

// -----

// CHECK: output 0 is tensor<3x4xf32>, should be tensor<2x4xf32>
func.func @main(%x: tensor<4xf32>) {
  %o, %y = spike.loop scan() init(%x) : (), (tensor<4xf32>) steps 2 -> (tensor<3x4xf32>) {
  ^step(%t: tensor<i64>, %v: tensor<4xf32>):
    spike.yield outputs(%v) states(%v) : (tensor<4xf32>), (tensor<4xf32>)
  }
  func.return
}

// -----

// CHECK: start = 3 needs the operand step
func.func @main(%x: tensor<4xf32>) {
  %y = spike.accumulate(%x, %x) {start = 3} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  func.return
}

// -----

// CHECK: ring has shape [4], should have [4, 4]
func.func @main(%x: tensor<4xf32>) {
  %y, %r = spike.delay(%x, %x) : (tensor<4xf32>, tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>)
  func.return
}

// -----

// CHECK: result is tensor<4xf32>, should hold events
func.func @main() {
  %y = spike.silence() : () -> tensor<4xf32>
  func.return
}

// -----

// CHECK: region must end with spike.yield of one output
func.func @main(%x: tensor<4xf32>, %t: tensor<i64>) {
  %y, %a, %l = spike.expectation(%x, %x, %x, %t) : (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<i64>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) {
  ^f(%m: tensor<4xf32>):
    spike.yield outputs(%m, %m) states() : (tensor<4xf32>, tensor<4xf32>), ()
  }
  func.return
}
