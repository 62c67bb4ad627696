// RUN: neuc opt %s | filecheck %s
// RUN: neuc opt %s | neuc opt - | filecheck %s
// RUN: neuc opt %s --print-op-generic | neuc opt - | filecheck %s

// CHECK-LABEL: func.func @linear
func.func @linear(%x: tensor<?x384xf32, #store.dims<"B", "384">>) {
  // CHECK: %w = ternary.weight trits "w.t" sha "0123456789ab" scales "w.s" sha "fedc" sqnr 2.150000e+01 : !ternary.trits<40x384, scale = row, planes = 3>
  %w = ternary.weight trits "w.t" sha "0123456789ab" scales "w.s" sha "fedc" sqnr 21.5 : !ternary.trits<40x384, scale = row, planes = 3>
  // CHECK: %v = ternary.weight trits "v.t" sha "0" scales "v.s" sha "1" : !ternary.trits<40x384, scale = group<128>, planes = 1, levels = [-3, -1, 1, 3]>
  %v = ternary.weight trits "v.t" sha "0" scales "v.s" sha "1" : !ternary.trits<40x384, scale = group<128>, planes = 1, levels = [-3, -1, 1, 3]>
  // CHECK: %q, %s = ternary.quantize %x : tensor<?x384xf32, #store.dims<"B", "384">> -> tensor<?x384xi8, #store.dims<"B", "384">>, tensor<?xf32, #store.dims<"B">>
  %q, %s = ternary.quantize %x : tensor<?x384xf32, #store.dims<"B", "384">> -> tensor<?x384xi8, #store.dims<"B", "384">>, tensor<?xf32, #store.dims<"B">>
  %b = store.constant "b" sha "0" : tensor<40xf32>
  // CHECK: %y = ternary.linear %q, %s, %w bias %b activation <relu> : (
  %y = ternary.linear %q, %s, %w bias %b activation <relu> : (tensor<?x384xi8, #store.dims<"B", "384">>, tensor<?xf32, #store.dims<"B">>, !ternary.trits<40x384, scale = row, planes = 3>, tensor<40xf32>) -> tensor<?x40xf32, #store.dims<"B", "40">>
  // CHECK: %o = ternary.linear %q, %s, %w offset 128 : (
  %o = ternary.linear %q, %s, %w offset 128 : (tensor<?x384xi8, #store.dims<"B", "384">>, tensor<?xf32, #store.dims<"B">>, !ternary.trits<40x384, scale = row, planes = 3>) -> tensor<?x40xf32, #store.dims<"B", "40">>
  // CHECK: %z = ternary.linear %q, %s, %v : (
  %z = ternary.linear %q, %s, %v : (tensor<?x384xi8, #store.dims<"B", "384">>, tensor<?xf32, #store.dims<"B">>, !ternary.trits<40x384, scale = group<128>, planes = 1, levels = [-3, -1, 1, 3]>) -> tensor<?x40xf32, #store.dims<"B", "40">>
  // CHECK: %p = ternary.pack %v BM = 64 BK = 128 : !ternary.trits<40x384, scale = group<128>, planes = 1, levels = [-3, -1, 1, 3]> -> !ternary.packed<#ternary.encoding<i8>, 40x384, scale = group<128>, planes = 1, levels = [-3, -1, 1, 3]>
  %p = ternary.pack %v BM = 64 BK = 128 : !ternary.trits<40x384, scale = group<128>, planes = 1, levels = [-3, -1, 1, 3]> -> !ternary.packed<#ternary.encoding<i8>, 40x384, scale = group<128>, planes = 1, levels = [-3, -1, 1, 3]>
  // CHECK: %a = ternary.accumulate %q, %p : {{.*}} -> tensor<?x3x40xi32, #store.dims<"B", "3", "40">>
  %a = ternary.accumulate %q, %p : (tensor<?x384xi8, #store.dims<"B", "384">>, !ternary.packed<#ternary.encoding<i8>, 40x384, scale = group<128>, planes = 1, levels = [-3, -1, 1, 3]>) -> tensor<?x3x40xi32, #store.dims<"B", "3", "40">>
  // CHECK: %d = ternary.dequantize %a, %s, %v bias %b activation <clip, 0.0, 6.0> : (
  %d = ternary.dequantize %a, %s, %v bias %b activation <clip, 0.0, 6.0> : (tensor<?x3x40xi32, #store.dims<"B", "3", "40">>, tensor<?xf32, #store.dims<"B">>, !ternary.trits<40x384, scale = group<128>, planes = 1, levels = [-3, -1, 1, 3]>, tensor<40xf32>) -> tensor<?x40xf32, #store.dims<"B", "40">>
  func.return
}

// CHECK-LABEL: func.func @conv
func.func @conv(%x: tensor<1x4x?x8xf32, #store.dims<"1", "4", "H", "8">>) {
  %w = ternary.weight trits "w.t" sha "0" scales "w.s" sha "1" : !ternary.trits<6x18, scale = tensor, planes = 2>
  // CHECK: ternary.quantize %x axes 3 : {{.*}}, tensor<1xf32>
  %q, %s = ternary.quantize %x axes 3 : tensor<1x4x?x8xf32, #store.dims<"1", "4", "H", "8">> -> tensor<1x4x?x8xi8, #store.dims<"1", "4", "H", "8">>, tensor<1xf32>
  // CHECK: %y = ternary.conv %q, %s, %w kernel [3, 3] strides [1, 2] pads [1, 0, 1, 1] dilations [1, 1] group 2 activation <relu> : (
  %y = ternary.conv %q, %s, %w kernel [3, 3] strides [1, 2] pads [1, 0, 1, 1] dilations [1, 1] group 2 activation <relu> : (tensor<1x4x?x8xi8, #store.dims<"1", "4", "H", "8">>, tensor<1xf32>, !ternary.trits<6x18, scale = tensor, planes = 2>) -> tensor<1x6x?x4xf32, #store.dims<"1", "6", "H", "4">>
  // CHECK: %o = ternary.conv %q, %s, %w offset -5 kernel [3, 3] strides [1, 2] pads [0, 0, 0, 0] dilations [1, 1] group 2 : (
  %o = ternary.conv %q, %s, %w offset -5 kernel [3, 3] strides [1, 2] pads [0, 0, 0, 0] dilations [1, 1] group 2 : (tensor<1x4x?x8xi8, #store.dims<"1", "4", "H", "8">>, tensor<1xf32>, !ternary.trits<6x18, scale = tensor, planes = 2>) -> tensor<1x6x?x3xf32, #store.dims<"1", "6", "H - 2", "3">>
  // CHECK: %i = ternary.im2col %q kernel [3, 3] strides [1, 2] pads [1, 0, 1, 1] dilations [1, 1] : {{.*}} -> tensor<1x?x36xi8, #store.dims<"1", "4*H", "36">>
  %i = ternary.im2col %q kernel [3, 3] strides [1, 2] pads [1, 0, 1, 1] dilations [1, 1] : tensor<1x4x?x8xi8, #store.dims<"1", "4", "H", "8">> -> tensor<1x?x36xi8, #store.dims<"1", "4*H", "36">>
  func.return
}

// CHECK-LABEL: func.func @embedding
func.func @embedding(%ids: tensor<?xi64, #store.dims<"S">>) {
  %w = ternary.weight trits "w.t" sha "0" scales "w.s" sha "1" : !ternary.trits<40x64, scale = group<32>, planes = 1>
  // CHECK: %y = ternary.lookup %ids, %w : (tensor<?xi64, #store.dims<"S">>, !ternary.trits<40x64, scale = group<32>, planes = 1>) -> tensor<?x64xf32, #store.dims<"S", "64">>
  %y = ternary.lookup %ids, %w : (tensor<?xi64, #store.dims<"S">>, !ternary.trits<40x64, scale = group<32>, planes = 1>) -> tensor<?x64xf32, #store.dims<"S", "64">>
  func.return
}
