// RUN: neuc opt %s -p ternary-synapses{planes=1} | filecheck %s

// CHECK-LABEL: func.func @main
func.func @main(%x: tensor<4x3xf32>, %e: tensor<4x3x!spike.event<binary>>) -> (tensor<4x2xf32>, tensor<4x2xf32>) {
  %w = store.constant value dense<[[1.0, 0.0, -1.0], [0.5, 0.5, 0.0]]> : tensor<2x3xf32> : tensor<2x3xf32>
  %b = store.constant value dense<[1.0, 2.0]> : tensor<2xf32> : tensor<2xf32>

  // Numbers keep their weights.
  // CHECK: spike.linear({{%[^,]*}}, [[W:%[0-9a-z]+]]) : (tensor<4x3xf32>, tensor<2x3xf32>)
  %0 = spike.linear(%x, %w) : (tensor<4x3xf32>, tensor<2x3xf32>) -> tensor<4x2xf32>

  // CHECK: [[T:%[0-9a-z]+]] = ternary.weight
  // CHECK-SAME: sqnr 1.500000e+02
  // CHECK: spike.linear({{%[^,]*}}, [[T]], {{%[^)]*}}) : (tensor<4x3x!spike.event<binary>>, !ternary.trits<2x3, scale = row, planes = 1>, tensor<2xf32>)
  %1 = spike.linear(%e, %w, %b) : (tensor<4x3x!spike.event<binary>>, tensor<2x3xf32>, tensor<2xf32>) -> tensor<4x2xf32>
  return %0, %1 : tensor<4x2xf32>, tensor<4x2xf32>
}
