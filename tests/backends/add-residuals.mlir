// RUN: neuc opt %s -p 'add-residuals{mode=array}' | filecheck %s

// The codes of a product that nothing else reads are added to another tensor's behind it, which is computed right
// before; what the map does with the sum's codes follows. Codes that lie otherwise are moved to where it has its own.
// CHECK-LABEL: func.func @main
// CHECK: %[[A:[0-9a-z_]+]] = ternary.accumulate
// CHECK: %[[R:[0-9a-z_]+]] = npu.requantize %[[A]]
// CHECK: %[[F:[0-9a-z_]+]] = dense.transpose(%other) {perm = [0, 2, 1]} : (tensor<1x4x6xi8>) -> tensor<1x6x4xi8>
// CHECK: %[[S:[0-9a-z_]+]] = npu.add_codes %[[R]], %[[F]], {{.*}} -> tensor<1x6x4xi8>
// CHECK: %[[T:[0-9a-z_]+]] = dense.transpose(%[[S]]) {perm = [0, 2, 1]} : (tensor<1x6x4xi8>) -> tensor<1x4x6xi8>
// CHECK: dense.map(%[[T]]) : (tensor<1x4x6xi8>) -> tensor<1x4x6xf32>
// A product of two tensors is no sum of them.
// CHECK: dense.map({{.*}}) attributes {npu.unfinished = "arith.mulf of two tensors comes before its codes"}
func.func @main(%q: tensor<1x6x8xi8>, %p: !ternary.packed<#ternary.encoding<i2>, 4x8, scale = row, planes = 1>, %other: tensor<1x4x6xi8>) -> (tensor<1x4x6xf32>, tensor<1x6x4xi8>) {
  %m = store.constant value dense<1073741824> : tensor<4xi32> : tensor<4xi32>
  %o = store.constant value dense<0> : tensor<4xi64> : tensor<4xi64>
  %l = store.constant value dense<[[34, 0, -128, 127], [34, 0, -128, 127], [34, 0, -128, 127], [34, 0, -128, 127]]> : tensor<4x4xi8> : tensor<4x4xi8>
  %e = store.constant value dense<0> : tensor<4x1x2xi32> : tensor<4x1x2xi32>
  %acc0 = ternary.accumulate %q, %p : (tensor<1x6x8xi8>, !ternary.packed<#ternary.encoding<i2>, 4x8, scale = row, planes = 1>) -> tensor<1x6x1x4xi32>
  %r0 = npu.requantize %acc0, %m, %o, %l, %e : (tensor<1x6x1x4xi32>, tensor<4xi32>, tensor<4xi64>, tensor<4x4xi8>, tensor<4x1x2xi32>) -> tensor<1x6x4xi8>
  %t = dense.transpose(%r0) {perm = [0, 2, 1]} : (tensor<1x6x4xi8>) -> tensor<1x4x6xi8>
  %s = dense.map(%t, %other) : (tensor<1x4x6xi8>, tensor<1x4x6xi8>) -> tensor<1x4x6xf32> {
  ^bb0(%a: i8, %b: i8):
    %sa = arith.constant 0.0513219 : f32
    %sb = arith.constant 0.0307771 : f32
    %sc = arith.constant 0.0611337 : f32
    %low = arith.constant -128.0 : f32
    %high = arith.constant 127.0 : f32
    %af = arith.sitofp %a : i8 to f32
    %ar = arith.mulf %af, %sa : f32
    %bf = arith.sitofp %b : i8 to f32
    %br = arith.mulf %bf, %sb : f32
    %sum = arith.addf %ar, %br : f32
    %over = arith.divf %sum, %sc : f32
    %near = math.roundeven %over : f32
    %up = arith.maximumf %near, %low : f32
    %down = arith.minimumf %up, %high : f32
    %c = arith.fptosi %down : f32 to i8
    %f = arith.sitofp %c : i8 to f32
    %d = arith.mulf %f, %sc : f32
    dense.yield %d : f32
  }
  %acc1 = ternary.accumulate %q, %p : (tensor<1x6x8xi8>, !ternary.packed<#ternary.encoding<i2>, 4x8, scale = row, planes = 1>) -> tensor<1x6x1x4xi32>
  %r1 = npu.requantize %acc1, %m, %o, %l, %e : (tensor<1x6x1x4xi32>, tensor<4xi32>, tensor<4xi64>, tensor<4x4xi8>, tensor<4x1x2xi32>) -> tensor<1x6x4xi8>
  %acc2 = ternary.accumulate %q, %p : (tensor<1x6x8xi8>, !ternary.packed<#ternary.encoding<i2>, 4x8, scale = row, planes = 1>) -> tensor<1x6x1x4xi32>
  %r2 = npu.requantize %acc2, %m, %o, %l, %e : (tensor<1x6x1x4xi32>, tensor<4xi32>, tensor<4xi64>, tensor<4x4xi8>, tensor<4x1x2xi32>) -> tensor<1x6x4xi8>
  %g = dense.map(%r1, %r2) : (tensor<1x6x4xi8>, tensor<1x6x4xi8>) -> tensor<1x6x4xi8> {
  ^bb0(%a: i8, %b: i8):
    %sa = arith.constant 0.0513219 : f32
    %sb = arith.constant 0.0307771 : f32
    %sc = arith.constant 0.0611337 : f32
    %low = arith.constant -128.0 : f32
    %high = arith.constant 127.0 : f32
    %af = arith.sitofp %a : i8 to f32
    %ar = arith.mulf %af, %sa : f32
    %bf = arith.sitofp %b : i8 to f32
    %br = arith.mulf %bf, %sb : f32
    %sum = arith.mulf %ar, %br : f32
    %over = arith.divf %sum, %sc : f32
    %near = math.roundeven %over : f32
    %up = arith.maximumf %near, %low : f32
    %down = arith.minimumf %up, %high : f32
    %c = arith.fptosi %down : f32 to i8
    dense.yield %c : i8
  }
  func.return %s, %g : tensor<1x4x6xf32>, tensor<1x6x4xi8>
}
