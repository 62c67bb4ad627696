// RUN: neuc opt %s | filecheck %s
// RUN: neuc opt %s | neuc opt - | filecheck %s
// RUN: neuc opt %s --print-op-generic | neuc opt - | filecheck %s

// CHECK-LABEL: func.func @main
func.func @main(%q: tensor<2x?x100xi8, #store.dims<"2", "S", "100">>, %p: !ternary.packed<#ternary.encoding<tl2, g = 3>, 40x100, scale = row, planes = 2>) {
  // CHECK: %t = lut.build %q : tensor<2x?x100xi8, #store.dims<"2", "S", "100">> -> !lut.table<100, g = 3>
  %t = lut.build %q : tensor<2x?x100xi8, #store.dims<"2", "S", "100">> -> !lut.table<100, g = 3>
  // CHECK: %a = lut.accumulate %t, %p g = 3 BM = 32 BK = 108 : (!lut.table<100, g = 3>, !ternary.packed<#ternary.encoding<tl2, g = 3>, 40x100, scale = row, planes = 2>) -> tensor<2x?x1x80xi32, #store.dims<"2", "S", "1", "80">>
  %a = lut.accumulate %t, %p g = 3 BM = 32 BK = 108 : (!lut.table<100, g = 3>, !ternary.packed<#ternary.encoding<tl2, g = 3>, 40x100, scale = row, planes = 2>) -> tensor<2x?x1x80xi32, #store.dims<"2", "S", "1", "80">>
  func.return
}
