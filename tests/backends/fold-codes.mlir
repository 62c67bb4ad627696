// RUN: neuc opt %s -p fold-codes | filecheck %s

// A function of the codes of a finished product alone is its table; what changes no code goes; codes are added before
// they are moved, and single pixels read as they were made.
// CHECK-LABEL: func.func @main
// CHECK: %[[R:[0-9a-z_]+]] = npu.requantize {{.*}} table
// CHECK: %[[A:[0-9a-z_]+]] = dense.map(%[[R]], %{{.*}}) : (tensor<1x6x4xi8>, tensor<1x6x4xi8>) -> tensor<1x6x4xi8>
// CHECK-NOT: ternary.im2col
// CHECK: func.return %[[A]]
func.func @main(%acc: tensor<1x6x1x4xi32>, %p: tensor<1x6x4xi8>) -> tensor<1x6x4xi8> {
  %m = store.constant value dense<1073741824> : tensor<4xi32> : tensor<4xi32>
  %o = store.constant value dense<0> : tensor<4xi64> : tensor<4xi64>
  %l = store.constant value dense<[[34, 0, -128, 127], [34, 0, -128, 127], [34, 0, -128, 127], [34, 0, -128, 127]]> : tensor<4x4xi8> : tensor<4x4xi8>
  %e = store.constant value dense<0> : tensor<4x1x2xi32> : tensor<4x1x2xi32>
  %r = npu.requantize %acc, %m, %o, %l, %e : (tensor<1x6x1x4xi32>, tensor<4xi32>, tensor<4xi64>, tensor<4x4xi8>, tensor<4x1x2xi32>) -> tensor<1x6x4xi8>
  %t = dense.transpose(%r) {perm = [0, 2, 1]} : (tensor<1x6x4xi8>) -> tensor<1x4x6xi8>
  %i = dense.reshape(%t) : (tensor<1x4x6xi8>) -> tensor<1x4x2x3xi8>
  %half = dense.map(%i) : (tensor<1x4x2x3xi8>) -> tensor<1x4x2x3xi8> {
  ^bb0(%c: i8):
    %two = arith.constant 2.0 : f32
    %f = arith.sitofp %c : i8 to f32
    %h = arith.divf %f, %two : f32
    %n = math.roundeven %h : f32
    %d = arith.fptosi %n : f32 to i8
    dense.yield %d : i8
  }
  %u = dense.transpose(%p) {perm = [0, 2, 1]} : (tensor<1x6x4xi8>) -> tensor<1x4x6xi8>
  %j = dense.reshape(%u) : (tensor<1x4x6xi8>) -> tensor<1x4x2x3xi8>
  %same = dense.map(%j) : (tensor<1x4x2x3xi8>) -> tensor<1x4x2x3xi8> {
  ^bb0(%c: i8):
    %f = arith.sitofp %c : i8 to f32
    %d = arith.fptosi %f : f32 to i8
    dense.yield %d : i8
  }
  %sum = dense.map(%half, %same) : (tensor<1x4x2x3xi8>, tensor<1x4x2x3xi8>) -> tensor<1x4x2x3xi8> {
  ^bb0(%a: i8, %b: i8):
    %two = arith.constant 2.0 : f32
    %f = arith.sitofp %a : i8 to f32
    %g = arith.sitofp %b : i8 to f32
    %s = arith.addf %f, %g : f32
    %h = arith.divf %s, %two : f32
    %n = math.roundeven %h : f32
    %d = arith.fptosi %n : f32 to i8
    dense.yield %d : i8
  }
  %w = ternary.im2col %sum kernel [1, 1] strides [1, 1] pads [0, 0, 0, 0] dilations [1, 1] : tensor<1x4x2x3xi8> -> tensor<1x6x4xi8>
  func.return %w : tensor<1x6x4xi8>
}
