// RUN: neuc opt %s -p recognize-ternary --print-debuginfo | filecheck %s

// Rounded, clipped, divided by what is one number a row: codes and a scale. The operations up to the codes stay.
// CHECK-LABEL: func.func @main
// CHECK: %c = dense.map(%x, %a)
// CHECK: %[[Q:.*]] = dense.map(%c) : (tensor<2x16xf32>) -> tensor<2x16xi8> {
// CHECK: arith.fptosi {{.*}} : f32 to i8
// CHECK: arith.divf
// CHECK: %[[S:.*]] = dense.reshape(%{{.*}}) : (tensor<2x1xf32>) -> tensor<2xf32>
// CHECK: %[[W:.*]] = ternary.weight {{.*}} {ternary.ulp = 0 : i64} : !ternary.trits<1x16, scale = tensor, planes = 1> loc("fc")
// CHECK: %y = ternary.linear %[[Q]], %[[S]], %[[W]] bias %b : {{.*}} loc("fc")
// CHECK-NOT: dense.matmul

// What one half is missing of says so.
// CHECK-LABEL: func.func @halves
// CHECK: dense.matmul{{.*}} attributes {ternary.kept = "its weights hold 3 levels (exactly), but its activations are float"}
// CHECK: dense.matmul{{.*}} attributes {ternary.kept = "its weights hold 3 levels (exactly), but its activations are rounded, but not clipped to eight bits"}
// CHECK: dense.matmul{{.*}} attributes {ternary.kept = "its activations are 8-bit codes, but its weights hold more levels than -15 to 15"}
// CHECK: dense.matmul(%x, %v) : {{.*}} loc("plain")

func.func @main(%x: tensor<2x16xf32>, %a: tensor<2x1xf32>, %b: tensor<1xf32>) -> tensor<2x1xf32> {
  %w = store.constant value dense<[[0.5], [0.0], [-0.5], [0.5], [0.5], [0.0], [-0.5], [0.5], [0.5], [0.0], [-0.5], [0.5], [0.5], [0.0], [-0.5], [0.5]]> : tensor<16x1xf32> : tensor<16x1xf32>
  %c = dense.map(%x, %a) : (tensor<2x16xf32>, tensor<2x1xf32>) -> tensor<2x16xf32> {
  ^bb0(%p: f32, %s: f32):
    %0 = arith.mulf %p, %s : f32
    %1 = math.roundeven %0 : f32
    %low = arith.constant -128.0 : f32
    %high = arith.constant 127.0 : f32
    %2 = arith.maximumf %1, %low : f32
    %3 = arith.minimumf %2, %high : f32
    dense.yield %3 : f32
  } loc("round")
  %d = dense.map(%c, %a) : (tensor<2x16xf32>, tensor<2x1xf32>) -> tensor<2x16xf32> {
  ^bb0(%p: f32, %s: f32):
    %0 = arith.divf %p, %s : f32
    dense.yield %0 : f32
  } loc("back")
  %y = dense.matmul(%d, %w, %b) : (tensor<2x16xf32>, tensor<16x1xf32>, tensor<1xf32>) -> tensor<2x1xf32> loc("fc")
  func.return %y : tensor<2x1xf32>
}

func.func @halves(%x: tensor<2x16xf32>, %i: tensor<2x16xi8>) -> (tensor<2x1xf32>, tensor<2x1xf32>, tensor<2x1xf32>, tensor<2x1xf32>) {
  %w = store.constant value dense<[[0.5], [0.0], [-0.5], [0.5], [0.5], [0.0], [-0.5], [0.5], [0.5], [0.0], [-0.5], [0.5], [0.5], [0.0], [-0.5], [0.5]]> : tensor<16x1xf32> : tensor<16x1xf32>
  %v = store.constant value dense<[[0.1], [0.27], [-0.53], [0.5], [0.5], [0.0], [-0.5], [0.5], [0.5], [0.0], [-0.5], [0.5], [0.5], [0.0], [-0.5], [0.5]]> : tensor<16x1xf32> : tensor<16x1xf32>
  %y0 = dense.matmul(%x, %w) : (tensor<2x16xf32>, tensor<16x1xf32>) -> tensor<2x1xf32>
  %r = dense.map(%x) : (tensor<2x16xf32>) -> tensor<2x16xf32> {
  ^bb0(%p: f32):
    %0 = math.roundeven %p : f32
    dense.yield %0 : f32
  }
  %y1 = dense.matmul(%r, %w) : (tensor<2x16xf32>, tensor<16x1xf32>) -> tensor<2x1xf32>
  %f = dense.map(%i) : (tensor<2x16xi8>) -> tensor<2x16xf32> {
  ^bb0(%p: i8):
    %0 = arith.sitofp %p : i8 to f32
    dense.yield %0 : f32
  }
  %y2 = dense.matmul(%f, %v) : (tensor<2x16xf32>, tensor<16x1xf32>) -> tensor<2x1xf32>
  %y3 = dense.matmul(%x, %v) : (tensor<2x16xf32>, tensor<16x1xf32>) -> tensor<2x1xf32> loc("plain")
  func.return %y0, %y1, %y2, %y3 : tensor<2x1xf32>, tensor<2x1xf32>, tensor<2x1xf32>, tensor<2x1xf32>
}
