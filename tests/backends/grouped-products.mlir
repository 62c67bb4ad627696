// RUN: neuc opt %s -p 'grouped-products' | filecheck %s
// RUN: neuc opt %s -p 'grouped-products{least=100000}' | filecheck %s --check-prefix=SMALL

// Windows of all channels side by side, sums of each group's own; the rest as of other convolutions.
// CHECK: %[[P:[0-9a-z_]+]] = ternary.im2col %q kernel [3, 3] {{.*}} : tensor<1x8x6x6xi8> -> tensor<1x36x72xi8>
// CHECK: ternary.pack {{.*}}<i2>
// CHECK: %[[A:[0-9a-z_]+]] = npu.grouped_accumulate %[[P]], {{.*}} groups 8 : {{.*}} -> tensor<1x36x1x8xi32>
// CHECK: ternary.dequantize %[[A]]
// CHECK: dense.transpose
// CHECK-NOT: ternary.conv
// SMALL: ternary.conv
func.func @main(%q: tensor<1x8x6x6xi8>, %s: tensor<1xf32>) -> tensor<1x8x6x6xf32> {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<8x9, scale = row, planes = 1>
  %y = ternary.conv %q, %s, %w kernel [3, 3] strides [1, 1] pads [1, 1, 1, 1] dilations [1, 1] group 8 : (tensor<1x8x6x6xi8>, tensor<1xf32>, !ternary.trits<8x9, scale = row, planes = 1>) -> tensor<1x8x6x6xf32>
  func.return %y : tensor<1x8x6x6xf32>
}
