// RUN: neuc opt %s -p normalize-thresholds | filecheck %s

// CHECK: %[[W:.*]] = store.constant value dense<[{{\[}}5.000000e-01, 1.000000e+00], [7.500000e-01, 1.000000e+00]]>
// CHECK: dense.matmul(%x, %[[W]]) {transpose_b}
// CHECK: %[[V:.*]] = store.constant value dense<5.000000e-01>
// CHECK: %[[ONE:.*]] = store.constant value dense<1.000000e+00>
// CHECK: spike.loop scan() init(%[[V]])
// CHECK: spike.if(%{{.*}}, %{{.*}}, %[[ONE]])

// A hard reset stays, and says so.
// CHECK-LABEL: func.func @hard
// CHECK: spike.if{{.*}}attributes {spike.kept = "its reset is not by the threshold"}

builtin.module {
  func.func @main(%x: tensor<1x2xf32>) -> tensor<1x2xf32> {
    %w = store.constant value dense<[[1.0, 2.0], [3.0, 4.0]]> : tensor<2x2xf32> : tensor<2x2xf32>
    %i = dense.matmul(%x, %w) {transpose_b} : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
    %v = store.constant value dense<[[1.0, 2.0]]> : tensor<1x2xf32> : tensor<1x2xf32>
    %theta = store.constant value dense<[2.0, 4.0]> : tensor<2xf32> : tensor<2xf32>
    %end = spike.loop scan() init(%v) : (), (tensor<1x2xf32>) steps 2 -> () {
    ^bb0(%t: tensor<i64>, %p: tensor<1x2xf32>):
      %s, %q = spike.if(%i, %p, %theta) : (tensor<1x2xf32>, tensor<1x2xf32>, tensor<2xf32>) -> (tensor<1x2x!spike.event<binary>>, tensor<1x2xf32>)
      spike.yield outputs() states(%q) : (), (tensor<1x2xf32>)
    }
    func.return %end : tensor<1x2xf32>
  }
  func.func @hard(%x: tensor<1x2xf32>, %v: tensor<1x2xf32>) -> tensor<1x2xf32> {
    %theta = store.constant value dense<[2.0, 4.0]> : tensor<2xf32> : tensor<2xf32>
    %end = spike.loop scan() init(%v) : (), (tensor<1x2xf32>) steps 2 -> () {
    ^bb0(%t: tensor<i64>, %p: tensor<1x2xf32>):
      %s, %q = spike.if(%x, %p, %theta) {reset = hard} : (tensor<1x2xf32>, tensor<1x2xf32>, tensor<2xf32>) -> (tensor<1x2x!spike.event<binary>>, tensor<1x2xf32>)
      spike.yield outputs() states(%q) : (), (tensor<1x2xf32>)
    }
    func.return %end : tensor<1x2xf32>
  }
}
