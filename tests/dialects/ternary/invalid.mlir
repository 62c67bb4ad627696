// RUN: neuc opt %s --split-input-file --verify-diagnostics | filecheck %s

// CHECK: planes = 0: at least one plane is needed
func.func @main() {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<8x16, scale = row, planes = 0>
  func.return
}

// -----

// CHECK: a 0x16 matrix has no weights
func.func @main() {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<0x16, scale = row, planes = 1>
  func.return
}

// -----

// CHECK: levels [1, 0, -1]: two or more ascending integers in -127..127
func.func @main() {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<8x16, scale = row, planes = 1, levels = [1, 0, -1]>
  func.return
}

// -----

// CHECK: scale group<0>: a group has at least one column
func.func @main() {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<8x16, scale = group<0>, planes = 1>
  func.return
}

// -----

// CHECK: q has shape [2, 15], should have [2, 16]
func.func @main(%x: tensor<2x16xf32>) {
  %q, %s = ternary.quantize %x : tensor<2x16xf32> -> tensor<2x15xi8>, tensor<2xf32>
  func.return
}

// -----

// CHECK: s has shape [2], should have []
func.func @main(%x: tensor<2x16xf32>) {
  %q, %s = ternary.quantize %x axes 2 : tensor<2x16xf32> -> tensor<2x16xi8>, tensor<2xf32>
  func.return
}

// -----

// CHECK: axes = 3, but x has rank 2
func.func @main(%x: tensor<2x16xf32>) {
  %q, %s = ternary.quantize %x axes 3 : tensor<2x16xf32> -> tensor<2x16xi8>, tensor<2xf32>
  func.return
}

// -----

// CHECK: x holds f64, should hold f32
func.func @main(%x: tensor<2x16xf64>) {
  %q, %s = ternary.quantize %x : tensor<2x16xf64> -> tensor<2x16xi8>, tensor<2xf32>
  func.return
}

// -----

// CHECK: q has shape [2, 15], should have [2, 16]
func.func @main(%q: tensor<2x15xi8>, %s: tensor<2xf32>) {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<8x16, scale = row, planes = 2>
  %y = ternary.linear %q, %s, %w : (tensor<2x15xi8>, tensor<2xf32>, !ternary.trits<8x16, scale = row, planes = 2>) -> tensor<2x8xf32>
  func.return
}

// -----

// CHECK: s has shape [3], should have [2]
func.func @main(%q: tensor<2x16xi8>, %s: tensor<3xf32>) {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<8x16, scale = row, planes = 2>
  %y = ternary.linear %q, %s, %w : (tensor<2x16xi8>, tensor<3xf32>, !ternary.trits<8x16, scale = row, planes = 2>) -> tensor<2x8xf32>
  func.return
}

// -----

// CHECK: bias has shape [9], should have [8]
func.func @main(%q: tensor<2x16xi8>, %s: tensor<2xf32>, %b: tensor<9xf32>) {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<8x16, scale = row, planes = 2>
  %y = ternary.linear %q, %s, %w bias %b : (tensor<2x16xi8>, tensor<2xf32>, !ternary.trits<8x16, scale = row, planes = 2>, tensor<9xf32>) -> tensor<2x8xf32>
  func.return
}

// -----

// CHECK: result has shape [2, 16], should have [2, 8]
func.func @main(%q: tensor<2x16xi8>, %s: tensor<2xf32>) {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<8x16, scale = row, planes = 2>
  %y = ternary.linear %q, %s, %w : (tensor<2x16xi8>, tensor<2xf32>, !ternary.trits<8x16, scale = row, planes = 2>) -> tensor<2x16xf32>
  func.return
}

// -----

// CHECK: pads has 2 entries, expected 4 for rank 4
func.func @main(%q: tensor<1x2x8x8xi8>, %s: tensor<1xf32>) {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<6x18, scale = row, planes = 1>
  %y = ternary.conv %q, %s, %w kernel [3, 3] strides [1, 1] pads [1, 1] dilations [1, 1] : (tensor<1x2x8x8xi8>, tensor<1xf32>, !ternary.trits<6x18, scale = row, planes = 1>) -> tensor<1x6x8x8xf32>
  func.return
}

// -----

// CHECK: strides = [0, 1] has an entry below 1
func.func @main(%q: tensor<1x2x8x8xi8>) {
  %y = ternary.im2col %q kernel [3, 3] strides [0, 1] pads [1, 1, 1, 1] dilations [1, 1] : tensor<1x2x8x8xi8> -> tensor<1x64x18xi8>
  func.return
}

// -----

// CHECK: result has shape [1, 64, 18], should have [1, 36, 18]
func.func @main(%q: tensor<1x2x8x8xi8>) {
  %y = ternary.im2col %q kernel [3, 3] strides [1, 1] pads [0, 0, 0, 0] dilations [1, 1] : tensor<1x2x8x8xi8> -> tensor<1x64x18xi8>
  func.return
}

// -----

// CHECK: K = 18 is not C/group·kernel for C = 3, group = 1, kernel = [3, 3]
func.func @main(%q: tensor<1x3x8x8xi8>, %s: tensor<1xf32>) {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<6x18, scale = row, planes = 1>
  %y = ternary.conv %q, %s, %w kernel [3, 3] strides [1, 1] pads [1, 1, 1, 1] dilations [1, 1] : (tensor<1x3x8x8xi8>, tensor<1xf32>, !ternary.trits<6x18, scale = row, planes = 1>) -> tensor<1x6x8x8xf32>
  func.return
}

// -----

// CHECK: group = 4 does not divide the 6 output channels
func.func @main(%q: tensor<1x8x8x8xi8>, %s: tensor<1xf32>) {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<6x18, scale = row, planes = 1>
  %y = ternary.conv %q, %s, %w kernel [3, 3] strides [1, 1] pads [1, 1, 1, 1] dilations [1, 1] group 4 : (tensor<1x8x8x8xi8>, tensor<1xf32>, !ternary.trits<6x18, scale = row, planes = 1>) -> tensor<1x6x8x8xf32>
  func.return
}

// -----

// CHECK: encoding tl2 with g = 4: a table holds 16 entries; g is 1 to 3
func.func @main(%p: !ternary.packed<#ternary.encoding<tl2, g = 4>, 8x16, scale = row, planes = 2>) {
  func.return
}

// -----

// CHECK: unknown encoding tl3: tl2, tl1, bitserial, t5, i2, i4, i8 exist
func.func @main(%p: !ternary.packed<#ternary.encoding<tl3>, 8x16, scale = row, planes = 2>) {
  func.return
}

// -----

// CHECK: encoding i2 has no look-up group, but g = 2
func.func @main(%p: !ternary.packed<#ternary.encoding<i2, g = 2>, 8x16, scale = row, planes = 2>) {
  func.return
}

// -----

// CHECK: g = 3 does not divide the 128 columns of a scale group
func.func @main(%p: !ternary.packed<#ternary.encoding<tl2, g = 3>, 8x256, scale = group<128>, planes = 2>) {
  func.return
}

// -----

// CHECK: BM = 24 is not a positive multiple of 16 rows
func.func @main() {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<8x16, scale = row, planes = 2>
  %p = ternary.pack %w BM = 24 BK = 24 : !ternary.trits<8x16, scale = row, planes = 2> -> !ternary.packed<#ternary.encoding<tl2, g = 3>, 8x16, scale = row, planes = 2>
  func.return
}

// -----

// CHECK: BK = 16 is not a positive multiple of 4·g = 12 columns
func.func @main() {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<8x16, scale = row, planes = 2>
  %p = ternary.pack %w BM = 16 BK = 16 : !ternary.trits<8x16, scale = row, planes = 2> -> !ternary.packed<#ternary.encoding<tl2, g = 3>, 8x16, scale = row, planes = 2>
  func.return
}

// -----

// CHECK: BK = 24 and the scale groups of 64 columns do not divide one another
func.func @main() {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<8x128, scale = group<64>, planes = 1>
  %p = ternary.pack %w BM = 16 BK = 24 : !ternary.trits<8x128, scale = group<64>, planes = 1> -> !ternary.packed<#ternary.encoding<tl2, g = 2>, 8x128, scale = group<64>, planes = 1>
  func.return
}

// -----

// CHECK: size, scale, planes or levels differ
func.func @main() {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<8x16, scale = row, planes = 2>
  %p = ternary.pack %w BM = 16 BK = 12 : !ternary.trits<8x16, scale = row, planes = 2> -> !ternary.packed<#ternary.encoding<tl2, g = 3>, 9x16, scale = row, planes = 2>
  func.return
}

// -----

// CHECK: encoding tl2 holds the levels -1, 0 and 1, not [0, 1, 2]
func.func @main() {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<8x16, scale = row, planes = 1, levels = [0, 1, 2]>
  %p = ternary.pack %w BM = 16 BK = 12 : !ternary.trits<8x16, scale = row, planes = 1, levels = [0, 1, 2]> -> !ternary.packed<#ternary.encoding<tl2, g = 3>, 8x16, scale = row, planes = 1, levels = [0, 1, 2]>
  func.return
}

// -----

// CHECK: encoding i2 holds up to 4 evenly spaced levels, not [-2, 0, 1]
func.func @main() {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<8x16, scale = row, planes = 1, levels = [-2, 0, 1]>
  %p = ternary.pack %w BM = 16 BK = 12 : !ternary.trits<8x16, scale = row, planes = 1, levels = [-2, 0, 1]> -> !ternary.packed<#ternary.encoding<i2>, 8x16, scale = row, planes = 1, levels = [-2, 0, 1]>
  func.return
}

// -----

// CHECK: encoding tl2 is for lut.accumulate; ternary.accumulate takes t5, i2, i4, i8
func.func @main(%q: tensor<2x16xi8>, %p: !ternary.packed<#ternary.encoding<tl2, g = 3>, 8x16, scale = row, planes = 2>) {
  %a = ternary.accumulate %q, %p : (tensor<2x16xi8>, !ternary.packed<#ternary.encoding<tl2, g = 3>, 8x16, scale = row, planes = 2>) -> tensor<2x1x16xi32>
  func.return
}

// -----

// CHECK: accumulator has shape [2, 1, 8], should have [2, 1, 16]
func.func @main(%q: tensor<2x16xi8>, %p: !ternary.packed<#ternary.encoding<i8>, 8x16, scale = row, planes = 2>) {
  %a = ternary.accumulate %q, %p : (tensor<2x16xi8>, !ternary.packed<#ternary.encoding<i8>, 8x16, scale = row, planes = 2>) -> tensor<2x1x8xi32>
  func.return
}

// -----

// CHECK: accumulator has shape [2, 1, 8], should have [2, 1, 16]
func.func @main(%a: tensor<2x1x8xi32>, %s: tensor<2xf32>) {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<8x16, scale = row, planes = 2>
  %y = ternary.dequantize %a, %s, %w : (tensor<2x1x8xi32>, tensor<2xf32>, !ternary.trits<8x16, scale = row, planes = 2>) -> tensor<2x8xf32>
  func.return
}

// -----

// CHECK: s has shape [3], should have [2]
func.func @main(%a: tensor<2x1x16xi32>, %s: tensor<3xf32>) {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<8x16, scale = row, planes = 2>
  %y = ternary.dequantize %a, %s, %w : (tensor<2x1x16xi32>, tensor<3xf32>, !ternary.trits<8x16, scale = row, planes = 2>) -> tensor<2x8xf32>
  func.return
}

// -----

// CHECK: offset = 200000000: sums of 16 products pass int32
func.func @main(%q: tensor<2x16xi8>, %s: tensor<2xf32>) {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<8x16, scale = row, planes = 1>
  %y = ternary.linear %q, %s, %w offset 200000000 : (tensor<2x16xi8>, tensor<2xf32>, !ternary.trits<8x16, scale = row, planes = 1>) -> tensor<2x8xf32>
  func.return
}

// -----

// CHECK: offset = 128 and pads [1, 0, 0, 0]: pad q itself
func.func @main(%q: tensor<1x4x5x8xi8>, %s: tensor<1xf32>) {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<6x36, scale = tensor, planes = 2>
  %y = ternary.conv %q, %s, %w offset 128 kernel [3, 3] strides [1, 1] pads [1, 0, 0, 0] dilations [1, 1] : (tensor<1x4x5x8xi8>, tensor<1xf32>, !ternary.trits<6x36, scale = tensor, planes = 2>) -> tensor<1x6x4x6xf32>
  func.return
}

// -----

// CHECK: result has shape [2, 8], should have [2, 16]
func.func @main(%ids: tensor<2xi64>) {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<8x16, scale = row, planes = 1>
  %y = ternary.lookup %ids, %w : (tensor<2xi64>, !ternary.trits<8x16, scale = row, planes = 1>) -> tensor<2x8xf32>
  func.return
}
