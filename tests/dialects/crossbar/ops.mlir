// RUN: neuc opt %s | neuc opt - | filecheck %s

// CHECK-LABEL: func.func @main
func.func @main(%x: tensor<?x6xf32, #store.dims<"B", "6">>, %b: tensor<4xf32>) -> tensor<?x4xf32, #store.dims<"B", "4">> {
  // CHECK-NEXT: %t = crossbar.program 3 weights "w" sha "0" device "pcm" : !crossbar.tile<4 x 4, differential>
  %t = crossbar.program 3 weights "w" sha "0" device "pcm" : !crossbar.tile<4 x 4, differential>
  // CHECK-NEXT: %u = crossbar.verify %t rounds 2 tolerance {{.*}} : !crossbar.tile<4 x 4, differential> -> !crossbar.tile<4 x 4, differential>
  %u = crossbar.verify %t rounds 2 tolerance 0.5 : !crossbar.tile<4 x 4, differential> -> !crossbar.tile<4 x 4, differential>
  // CHECK-NEXT: %g = crossbar.compensate %u scales "s" sha "1" kind "global" : !crossbar.tile<4 x 4, differential> -> tensor<4xf32>
  %g = crossbar.compensate %u scales "s" sha "1" kind "global" : !crossbar.tile<4 x 4, differential> -> tensor<4xf32>
  // CHECK-NEXT: %v = crossbar.dac %x {first = 2 : i64, levels = 254 : i64, bound = 1.000000e+00 : f64, part = "positive"}
  %v = crossbar.dac %x {first = 2 : i64, levels = 254 : i64, bound = 1.0 : f64, part = "positive"} : tensor<?x6xf32, #store.dims<"B", "6">> -> !crossbar.voltages<4>
  // CHECK-NEXT: %i = crossbar.mvm %v, %u {{.*}} : !crossbar.voltages<4>, !crossbar.tile<4 x 4, differential> -> !crossbar.currents<4>
  %i = crossbar.mvm %v, %u {noise = 0.0175 : f64, core = 1 : i64, step = 2 : i64} : !crossbar.voltages<4>, !crossbar.tile<4 x 4, differential> -> !crossbar.currents<4>
  // CHECK-NEXT: %y = crossbar.adc %i, %g {{.*}}kind = "sar"{{.*}}errors = "e", errors_sha = "0"{{.*}} : !crossbar.currents<4>, tensor<4xf32> -> tensor<?x4xf32
  %y = crossbar.adc %i, %g {levels = 254 : i64, bound = 10.0 : f64, kind = "sar", errors = "e", errors_sha = "0"} : !crossbar.currents<4>, tensor<4xf32> -> tensor<?x4xf32, #store.dims<"B", "4">>
  // CHECK-NEXT: %z = crossbar.accumulate(%y, %y : {{.*}}) bias %b : tensor<4xf32>
  %z = crossbar.accumulate (%y, %y : tensor<?x4xf32, #store.dims<"B", "4">>, tensor<?x4xf32, #store.dims<"B", "4">>) bias %b : tensor<4xf32> {starts = array<i64: 0, 0>, factors = array<f64: 1.0, -1.0>} -> tensor<?x4xf32, #store.dims<"B", "4">>
  func.return %z : tensor<?x4xf32, #store.dims<"B", "4">>
}
