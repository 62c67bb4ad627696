// RUN: neuc opt %s -p 'choose-encoding{encodings="i2","t5" rates=100,90}' | filecheck %s
// RUN: neuc opt %s -p 'choose-encoding{encodings="i2","t5" rates=100,90 l3=1024 bandwidth=10}' | filecheck %s --check-prefix MEMORY
// RUN: neuc opt %s -p 'choose-encoding{encodings="i2","t5" rates=100,90},tile-lut' | filecheck %s --check-prefix TILED

// CHECK-LABEL: func.func @main
// CHECK: %y = ternary.linear %q, %s, %w {ternary.choice = {encoding = "i2", why = "cost model: weights in cache; time of t5 1.11x"}}
// CHECK: %z = ternary.linear %q, %s, %v {ternary.choice = {encoding = "i2", why = "cost model: weights in cache"}}
// CHECK: %u = ternary.linear %q, %s, %w {ternary.choice = {encoding = "t5", BM = 32 : i64, why = "by hand"}}
// MEMORY: %y = ternary.linear %q, %s, %w {ternary.choice = {encoding = "t5", why = "cost model: read from memory; time of i2 1.25x"}}
// TILED: ternary.pack %w BM = 64 BK = 1024 {ternary.why = "cost model: weights in cache; time of t5 1.11x"} : {{.*}} -> !ternary.packed<#ternary.encoding<i2>,
// TILED: ternary.pack %w BM = 32 BK = {{[0-9]+}} {ternary.why = "by hand"} : {{.*}} -> !ternary.packed<#ternary.encoding<t5>,
func.func @main(%x: tensor<?x1024xf32, #store.dims<"B", "1024">>) -> (tensor<?x512xf32, #store.dims<"B", "512">>, tensor<?x512xf32, #store.dims<"B", "512">>, tensor<?x512xf32, #store.dims<"B", "512">>) {
  %w = ternary.weight trits "t" sha "0" scales "s" sha "1" : !ternary.trits<512x1024, scale = row, planes = 1>
  %v = ternary.weight trits "v" sha "2" scales "s" sha "1" : !ternary.trits<512x1024, scale = row, planes = 1, levels = [-3, -1, 1, 3]>
  %q, %s = ternary.quantize %x : tensor<?x1024xf32, #store.dims<"B", "1024">> -> tensor<?x1024xi8, #store.dims<"B", "1024">>, tensor<?xf32, #store.dims<"B">>
  %y = ternary.linear %q, %s, %w : (tensor<?x1024xi8, #store.dims<"B", "1024">>, tensor<?xf32, #store.dims<"B">>, !ternary.trits<512x1024, scale = row, planes = 1>) -> tensor<?x512xf32, #store.dims<"B", "512">>
  %z = ternary.linear %q, %s, %v : (tensor<?x1024xi8, #store.dims<"B", "1024">>, tensor<?xf32, #store.dims<"B">>, !ternary.trits<512x1024, scale = row, planes = 1, levels = [-3, -1, 1, 3]>) -> tensor<?x512xf32, #store.dims<"B", "512">>
  %u = ternary.linear %q, %s, %w {ternary.choice = {encoding = "t5", BM = 32 : i64, why = "by hand"}} : (tensor<?x1024xi8, #store.dims<"B", "1024">>, tensor<?xf32, #store.dims<"B">>, !ternary.trits<512x1024, scale = row, planes = 1>) -> tensor<?x512xf32, #store.dims<"B", "512">>
  func.return %y, %z, %u : tensor<?x512xf32, #store.dims<"B", "512">>, tensor<?x512xf32, #store.dims<"B", "512">>, tensor<?x512xf32, #store.dims<"B", "512">>
}
