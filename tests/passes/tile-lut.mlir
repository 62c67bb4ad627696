// RUN: neuc opt %s -p 'tile-lut{bm=32 bk=48}' --print-debuginfo | filecheck %s
// RUN: neuc opt %s -p 'tile-lut{group=2 bm=16 bk=40}' | filecheck %s --check-prefix=G2
// RUN: neuc opt %s -p 'tile-lut{encoding=i2}' | filecheck %s --check-prefix=I2
// RUN: neuc opt %s -p 'tile-lut{l1=2048}' | filecheck %s --check-prefix=SMALL
// RUN: not neuc opt %s -p 'tile-lut{bk=10}' 2>&1 | filecheck %s --check-prefix=BK
// RUN: not neuc opt %s -p 'tile-lut{group=4}' 2>&1 | filecheck %s --check-prefix=GROUP
// RUN: not neuc opt %s -p 'tile-lut{encoding=tq9}' 2>&1 | filecheck %s --check-prefix=ENC

// BK: BK = 10 is not a positive multiple of 4·g = 12 columns
// GROUP: group = 4 is out of range
// ENC: encoding 'tq9' is unknown

// Two products of one value share its tables, which stand for both.
// CHECK-LABEL: func.func @main
// CHECK: %[[P:.*]] = ternary.pack %w BM = 32 BK = 48 : !ternary.trits<40x90, scale = row, planes = 3> -> !ternary.packed<#ternary.encoding<tl2, g = 3>, 40x90, scale = row, planes = 3> loc("a")
// CHECK-NEXT: %[[T:.*]] = lut.build %q : {{.*}} -> !lut.table<90, g = 3> loc(fused["a", "b"])
// CHECK-NEXT: %[[A:.*]] = lut.accumulate %[[T]], %[[P]] g = 3 BM = 32 BK = 48 : {{.*}} -> tensor<?x1x120xi32, #store.dims<"B", "1", "120">> loc("a")
// CHECK-NEXT: %y = ternary.dequantize %[[A]], %s, %w bias %bias activation <relu> : {{.*}} loc("a")
// CHECK: %[[P2:.*]] = ternary.pack %v
// CHECK-NOT: lut.build %q
// CHECK: lut.accumulate %[[T]], %[[P2]]

// A convolution over its patches, back to channels first.
// CHECK: %[[I:.*]] = ternary.im2col %qi kernel [3, 3] {{.*}} -> tensor<1x16x27xi8> loc("c")
// CHECK: lut.build %[[I]]
// CHECK: ternary.dequantize {{.*}} -> tensor<1x16x4xf32>
// CHECK-NEXT: dense.transpose{{.*}}perm = [0, 2, 1]
// CHECK-NEXT: %c = dense.reshape{{.*}} -> tensor<1x4x4x4xf32> loc("c")

// Left alone: a grouped convolution.
// CHECK: %d = ternary.conv {{.*}} group 2

// G2: lut.build %q : {{.*}} -> !lut.table<90, g = 2>
// G2: g = 2 BM = 16 BK = 40

// Direct products need no tables.
// I2-NOT: lut.
// I2: ternary.pack %w {{.*}}#ternary.encoding<i2>
// I2-NEXT: ternary.accumulate %q

// Half of an L1 of 2 KB holds 32 tables: 96 columns. 90 columns are one block, rounded up to a multiple of 12.
// SMALL: BK = 96
func.func @main(%x: tensor<?x90xf32, #store.dims<"B", "90">>, %im: tensor<1x3x8x8xf32>, %g: tensor<1x4x8x8xf32>) -> (tensor<?x40xf32, #store.dims<"B", "40">>, tensor<?x40xf32, #store.dims<"B", "40">>, tensor<1x4x4x4xf32>, tensor<1x4x8x8xf32>) {
  %w = ternary.weight trits "w.t" sha "0" scales "w.s" sha "1" : !ternary.trits<40x90, scale = row, planes = 3>
  %v = ternary.weight trits "v.t" sha "0" scales "v.s" sha "1" : !ternary.trits<40x90, scale = tensor, planes = 1>
  %bias = store.constant "bias" sha "2" : tensor<40xf32>
  %q, %s = ternary.quantize %x : tensor<?x90xf32, #store.dims<"B", "90">> -> tensor<?x90xi8, #store.dims<"B", "90">>, tensor<?xf32, #store.dims<"B">>
  %y = ternary.linear %q, %s, %w bias %bias activation <relu> : (tensor<?x90xi8, #store.dims<"B", "90">>, tensor<?xf32, #store.dims<"B">>, !ternary.trits<40x90, scale = row, planes = 3>, tensor<40xf32>) -> tensor<?x40xf32, #store.dims<"B", "40">> loc("a")
  %z = ternary.linear %q, %s, %v : (tensor<?x90xi8, #store.dims<"B", "90">>, tensor<?xf32, #store.dims<"B">>, !ternary.trits<40x90, scale = tensor, planes = 1>) -> tensor<?x40xf32, #store.dims<"B", "40">> loc("b")
  %qi, %si = ternary.quantize %im axes 3 : tensor<1x3x8x8xf32> -> tensor<1x3x8x8xi8>, tensor<1xf32>
  %wc = ternary.weight trits "c.t" sha "0" scales "c.s" sha "1" : !ternary.trits<4x27, scale = row, planes = 1>
  %c = ternary.conv %qi, %si, %wc kernel [3, 3] strides [2, 2] pads [1, 1, 1, 1] dilations [1, 1] : (tensor<1x3x8x8xi8>, tensor<1xf32>, !ternary.trits<4x27, scale = row, planes = 1>) -> tensor<1x4x4x4xf32> loc("c")
  %qg, %sg = ternary.quantize %g axes 3 : tensor<1x4x8x8xf32> -> tensor<1x4x8x8xi8>, tensor<1xf32>
  %wg = ternary.weight trits "g.t" sha "0" scales "g.s" sha "1" : !ternary.trits<4x18, scale = row, planes = 1>
  %d = ternary.conv %qg, %sg, %wg kernel [3, 3] strides [1, 1] pads [1, 1, 1, 1] dilations [1, 1] group 2 : (tensor<1x4x8x8xi8>, tensor<1xf32>, !ternary.trits<4x18, scale = row, planes = 1>) -> tensor<1x4x8x8xf32>
  func.return %y, %z, %c, %d : tensor<?x40xf32, #store.dims<"B", "40">>, tensor<?x40xf32, #store.dims<"B", "40">>, tensor<1x4x4x4xf32>, tensor<1x4x8x8xf32>
}
