// RUN: neuc opt %s -p 'tile-lut{encoding=i2},place-npu{machine="npu-xdna1" free=1}' | filecheck %s
// RUN: neuc opt %s -p 'tile-lut{encoding=i2},place-npu{machine="npu-xdna1" least=4000}' | filecheck %s --check-prefix=LEAST

// Products of the same codes are one dispatch with several results; the second one moves up to the first.
// CHECK: builtin.module
// CHECK-SAME: 2 products run on npu-xdna1 in 1 dispatches
// CHECK-LABEL: func.func @main
// CHECK: %[[A:[0-9]+]], %[[B:[0-9]+]] = func.call @npu0(%q) : (tensor<2x90xi8>) -> (tensor<2x1x40xi32>, tensor<2x1x24xi32>)
// CHECK: ternary.dequantize %[[A]], %s
// CHECK: ternary.dequantize %[[B]], %s
// CHECK: func.func private @npu0
// CHECK-COUNT-2: ternary.accumulate

// 2 rows x 90 x 64 multiply-adds are more than 4000, and both are one product.
// LEAST: func.call @npu0
// LEAST-NOT: stay on the CPU
func.func @main(%q: tensor<2x90xi8>, %s: tensor<2xf32>) -> (tensor<2x40xf32>, tensor<2x24xf32>) {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<40x90, scale = row, planes = 1>
  %y = ternary.linear %q, %s, %w : (tensor<2x90xi8>, tensor<2xf32>, !ternary.trits<40x90, scale = row, planes = 1>) -> tensor<2x40xf32>
  %v = ternary.weight trits "u" sha "2" scales "r" sha "3" : !ternary.trits<24x90, scale = row, planes = 1>
  %z = ternary.linear %q, %s, %v : (tensor<2x90xi8>, tensor<2xf32>, !ternary.trits<24x90, scale = row, planes = 1>) -> tensor<2x24xf32>
  func.return %y, %z : tensor<2x40xf32>, tensor<2x24xf32>
}
