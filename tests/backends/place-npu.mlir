// RUN: neuc opt %s -p 'tile-lut{encoding=i2},place-npu{machine="npu-xdna1"}' | filecheck %s
// RUN: not neuc opt %s -p 'tile-lut{encoding=i2},place-npu{machine="npu-xdna9"}' 2>&1 | filecheck %s --check-prefix=NONE

// NONE: unknown machine 'npu-xdna9'

// The product goes to the array, its scales stay; what the CPU keeps is said.
// CHECK: builtin.module
// CHECK-SAME: 1 product runs on npu-xdna1
// CHECK-LABEL: func.func @main
// CHECK-NOT: ternary.accumulate
// CHECK: %[[A:.*]] = func.call @npu0(%q) : (tensor<2x90xi8>) -> tensor<2x1x40xi32>
// CHECK-NEXT: ternary.dequantize %[[A]], %s, %w
// CHECK: dense.matmul
// CHECK: func.func private @npu0
// CHECK-SAME: neuc.executor = "npu"
// CHECK-SAME: npu.machine = "npu-xdna1"
// CHECK-SAME: npu.plan = {m = 4 : i64, k = {{[0-9]+}} : i64, n = 16 : i64, spread = "grid", operands = "ternary"}
// CHECK: ternary.pack
// CHECK: ternary.accumulate
func.func @main(%q: tensor<2x90xi8>, %s: tensor<2xf32>, %m: tensor<40x4xf32>) -> tensor<2x4xf32> {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<40x90, scale = row, planes = 1>
  %y = ternary.linear %q, %s, %w : (tensor<2x90xi8>, tensor<2xf32>, !ternary.trits<40x90, scale = row, planes = 1>) -> tensor<2x40xf32>
  %z = dense.matmul(%y, %m) : (tensor<2x40xf32>, tensor<40x4xf32>) -> tensor<2x4xf32>
  func.return %z : tensor<2x4xf32>
}
