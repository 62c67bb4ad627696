// RUN: neuc opt %s --split-input-file --verify-diagnostics | filecheck %s

// CHECK: g = 4: a table has at most 16 entries
func.func @main(%t: !lut.table<16, g = 4>) {
  func.return
}

// -----

// CHECK: a table of 0 activations is empty
func.func @main(%t: !lut.table<0, g = 3>) {
  func.return
}

// -----

// CHECK: q has 15 columns, its table 16
func.func @main(%q: tensor<2x15xi8>) {
  %t = lut.build %q : tensor<2x15xi8> -> !lut.table<16, g = 3>
  func.return
}

// -----

// CHECK: q holds f32, should hold i8
func.func @main(%q: tensor<2x16xf32>) {
  %t = lut.build %q : tensor<2x16xf32> -> !lut.table<16, g = 3>
  func.return
}

// -----

// CHECK: g = 3, but the table has g = 3 and the weights g = 2: they must agree
func.func @main(%t: !lut.table<16, g = 3>, %p: !ternary.packed<#ternary.encoding<tl2, g = 2>, 8x16, scale = row, planes = 2>) {
  %a = lut.accumulate %t, %p g = 3 BM = 16 BK = 24 : (!lut.table<16, g = 3>, !ternary.packed<#ternary.encoding<tl2, g = 2>, 8x16, scale = row, planes = 2>) -> tensor<2x1x16xi32>
  func.return
}

// -----

// CHECK: g = 2, but the table has g = 3 and the weights g = 3: they must agree
func.func @main(%t: !lut.table<16, g = 3>, %p: !ternary.packed<#ternary.encoding<tl2, g = 3>, 8x16, scale = row, planes = 2>) {
  %a = lut.accumulate %t, %p g = 2 BM = 16 BK = 24 : (!lut.table<16, g = 3>, !ternary.packed<#ternary.encoding<tl2, g = 3>, 8x16, scale = row, planes = 2>) -> tensor<2x1x16xi32>
  func.return
}

// -----

// CHECK: the table has 17 columns, the weights 16
func.func @main(%t: !lut.table<17, g = 3>, %p: !ternary.packed<#ternary.encoding<tl2, g = 3>, 8x16, scale = row, planes = 2>) {
  %a = lut.accumulate %t, %p g = 3 BM = 16 BK = 24 : (!lut.table<17, g = 3>, !ternary.packed<#ternary.encoding<tl2, g = 3>, 8x16, scale = row, planes = 2>) -> tensor<2x1x16xi32>
  func.return
}

// -----

// CHECK: BM = 8 is not a positive multiple of 16 rows
func.func @main(%t: !lut.table<16, g = 3>, %p: !ternary.packed<#ternary.encoding<tl2, g = 3>, 8x16, scale = row, planes = 2>) {
  %a = lut.accumulate %t, %p g = 3 BM = 8 BK = 24 : (!lut.table<16, g = 3>, !ternary.packed<#ternary.encoding<tl2, g = 3>, 8x16, scale = row, planes = 2>) -> tensor<2x1x16xi32>
  func.return
}

// -----

// CHECK: takes encodings tl2, tl1, bitserial; i8 is for ternary.accumulate
func.func @main(%t: !lut.table<16, g = 3>, %p: !ternary.packed<#ternary.encoding<i8>, 8x16, scale = row, planes = 2>) {
  %a = lut.accumulate %t, %p g = 3 BM = 16 BK = 24 : (!lut.table<16, g = 3>, !ternary.packed<#ternary.encoding<i8>, 8x16, scale = row, planes = 2>) -> tensor<2x1x16xi32>
  func.return
}

// -----

// CHECK: accumulator has shape [2, 1, 15], should have [2, 1, 16]
func.func @main(%t: !lut.table<16, g = 3>, %p: !ternary.packed<#ternary.encoding<tl2, g = 3>, 8x16, scale = row, planes = 2>) {
  %a = lut.accumulate %t, %p g = 3 BM = 16 BK = 24 : (!lut.table<16, g = 3>, !ternary.packed<#ternary.encoding<tl2, g = 3>, 8x16, scale = row, planes = 2>) -> tensor<2x1x15xi32>
  func.return
}

// -----

// CHECK: accumulator has shape [3, 1, 16], should have [2, 1, 16]
func.func @main(%q: tensor<2x16xi8>, %p: !ternary.packed<#ternary.encoding<tl2, g = 3>, 8x16, scale = row, planes = 2>) {
  %t = lut.build %q : tensor<2x16xi8> -> !lut.table<16, g = 3>
  %a = lut.accumulate %t, %p g = 3 BM = 16 BK = 24 : (!lut.table<16, g = 3>, !ternary.packed<#ternary.encoding<tl2, g = 3>, 8x16, scale = row, planes = 2>) -> tensor<3x1x16xi32>
  func.return
}

// -----

// CHECK: BM = 16, BK = 24, but its weights are packed with BM = 32, BK = 24: change both
func.func @main(%t: !lut.table<16, g = 3>) {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<8x16, scale = row, planes = 2>
  %p = ternary.pack %w BM = 32 BK = 24 : !ternary.trits<8x16, scale = row, planes = 2> -> !ternary.packed<#ternary.encoding<tl2, g = 3>, 8x16, scale = row, planes = 2>
  %a = lut.accumulate %t, %p g = 3 BM = 16 BK = 24 : (!lut.table<16, g = 3>, !ternary.packed<#ternary.encoding<tl2, g = 3>, 8x16, scale = row, planes = 2>) -> tensor<2x1x16xi32>
  func.return
}
