// RUN: neuc opt %s -p 'map-to-crossbar{rows=2 columns=4}' | filecheck %s
// RUN: neuc opt %s -p 'map-to-crossbar{rows=2 columns=4},remap-stuck,insert-converters{adc_bits=6 mode="pos-neg"},schedule-tiles{rows=4 columns=4}' | filecheck %s --check-prefix=WHOLE
// RUN: neuc opt %s -p 'map-to-crossbar,insert-converters{adc_kind="ramp"},draw-converters{mismatch=0.02}' | filecheck %s --check-prefix=RAMP
// RUN: not neuc opt %s -p 'draw-converters{mismatch=2.0}' 2>&1 | filecheck %s --check-prefix=MISMATCH
// RUN: not neuc opt %s -p 'map-to-crossbar{rows=0}' 2>&1 | filecheck %s --check-prefix=SIZE
// RUN: not neuc opt %s -p 'insert-converters{adc_bits=40}' 2>&1 | filecheck %s --check-prefix=BITS
// RUN: not neuc opt %s -p 'map-to-crossbar{rows=2},schedule-tiles{cores=1 share=false}' 2>&1 | filecheck %s --check-prefix=CHIP
// RUN: not neuc opt %s -p 'map-to-crossbar,calibrate-inputs{data="missing.npz"}' 2>&1 | filecheck %s --check-prefix=DATA

// A matrix of four inputs on arrays with two input lines: two tiles, whose partial sums are added with the bias.
// CHECK-LABEL: func.func @main
// CHECK: %[[T0:.*]] = crossbar.program 0 weights {{.*}} device "pcm" : !crossbar.tile<2 x 3, differential>
// CHECK-NEXT: %[[G0:.*]] = crossbar.compensate %[[T0]] {{.*}} kind "global"
// CHECK-NEXT: %[[T1:.*]] = crossbar.program 1
// CHECK: %[[V0:.*]] = crossbar.dac %{{.*}} : tensor<5x4xf32> -> !crossbar.voltages<2>
// CHECK-NEXT: %[[I0:.*]] = crossbar.mvm %[[V0]], %[[T0]]
// CHECK-NEXT: %[[Y0:.*]] = crossbar.adc %[[I0]], %[[G0]]
// CHECK: crossbar.dac %{{.*}} {first = 2 : i64} : tensor<5x4xf32>
// CHECK: %[[Y1:.*]] = crossbar.adc
// CHECK-NEXT: crossbar.accumulate(%[[Y0]], %[[Y1]] : {{.*}}) bias %{{.*}}starts = array<i64: 0, 0>
// CHECK-NOT: dense.matmul

// WHOLE: crossbar.dac %{{.*}} levels = 254 : i64, bound = 1.000000e+00 : f64,{{.*}} part = "positive"
// WHOLE: crossbar.adc {{.*}}levels = 62 : i64, bound = 1.000000e+01 : f64
// WHOLE: part = "negative"
// WHOLE: factors = array<f64: 1.000000e+00, -1.000000e+00, 1.000000e+00, -1.000000e+00>

// RAMP: crossbar.adc {{.*}}kind = "ramp"{{.*}}errors = "crossbar.errors0", errors_sha = "
// MISMATCH: adc_mismatch = 2

// SIZE: NEUC-E651
// SIZE-SAME: a tile of 0 x 256
// BITS: NEUC-E652
// BITS-SAME: adc_bits = 40
// CHIP: NEUC-E653
// CHIP-SAME: the layers need 2 arrays of 256 x 256, the chip has 1
// DATA: NEUC-E004
// DATA-SAME: cannot read missing.npz
func.func @main(%x: tensor<5x4xf32> {"onnx.name" = "x"}) -> (tensor<5x3xf32> {"onnx.name" = "y"}) {
  %w = store.constant value dense<[[1.0, 2.0, 3.0], [-1.0, 0.5, 0.25], [2.0, 0.0, 1.0], [0.5, 0.5, -4.0]]> : tensor<4x3xf32> : tensor<4x3xf32>
  %b = store.constant value dense<[1.0, 2.0, 3.0]> : tensor<3xf32> : tensor<3xf32>
  %y = dense.matmul(%x, %w, %b) : (tensor<5x4xf32>, tensor<4x3xf32>, tensor<3xf32>) -> tensor<5x3xf32>
  func.return %y : tensor<5x3xf32>
}
