// RUN: neuc opt %s --split-input-file --verify-diagnostics | filecheck %s

// CHECK: a tile of 0 rows
func.func @main() {
  %t = crossbar.program 0 weights "w" sha "0" device "pcm" : !crossbar.tile<0 x 4, differential>
  func.return
}

// -----

// CHECK: cells 'pair': expected differential or offset
func.func @main() {
  %t = crossbar.program 0 weights "w" sha "0" device "pcm" : !crossbar.tile<4 x 4, pair>
  func.return
}

// -----

// CHECK: currents are read 0 times; an analog value goes into one place
func.func @main(%x: tensor<2x4xf32>) {
  %t = crossbar.program 0 weights "w" sha "0" device "pcm" : !crossbar.tile<4 x 4, differential>
  %v = crossbar.dac %x : tensor<2x4xf32> -> !crossbar.voltages<4>
  %i = crossbar.mvm %v, %t : !crossbar.voltages<4>, !crossbar.tile<4 x 4, differential> -> !crossbar.currents<4>
  func.return
}

// -----

// CHECK: 3 voltages drive a tile of 4 rows
func.func @main(%x: tensor<2x4xf32>, %g: tensor<4xf32>) {
  %t = crossbar.program 0 weights "w" sha "0" device "pcm" : !crossbar.tile<4 x 4, differential>
  %v = crossbar.dac %x : tensor<2x4xf32> -> !crossbar.voltages<3>
  %i = crossbar.mvm %v, %t : !crossbar.voltages<3>, !crossbar.tile<4 x 4, differential> -> !crossbar.currents<4>
  %y = crossbar.adc %i, %g : !crossbar.currents<4>, tensor<4xf32> -> tensor<2x4xf32>
  func.return
}

// -----

// CHECK: lines 2 … 5 of inputs that have 4
func.func @main(%x: tensor<2x4xf32>) {
  %v = crossbar.dac %x {first = 2 : i64} : tensor<2x4xf32> -> !crossbar.voltages<4>
  func.return
}

// -----

// CHECK: levels = 99999999: a converter has 2 to 16 bits
func.func @main(%x: tensor<2x4xf32>) {
  %v = crossbar.dac %x {levels = 99999999 : i64, bound = 1.0 : f64} : tensor<2x4xf32> -> !crossbar.voltages<4>
  func.return
}

// -----

// CHECK: parts cover 4 of 6 columns
func.func @main(%y: tensor<2x4xf32>) {
  %z = crossbar.accumulate (%y : tensor<2x4xf32>) {starts = array<i64: 0>, factors = array<f64: 1.0>} -> tensor<2x6xf32>
  func.return
}

// -----

// CHECK: errors are those of a converter's levels
func.func @main(%x: tensor<2x4xf32>, %g: tensor<4xf32>) {
  %t = crossbar.program 0 weights "w" sha "0" device "pcm" : !crossbar.tile<4 x 4, differential>
  %v = crossbar.dac %x : tensor<2x4xf32> -> !crossbar.voltages<4>
  %i = crossbar.mvm %v, %t : !crossbar.voltages<4>, !crossbar.tile<4 x 4, differential> -> !crossbar.currents<4>
  %y = crossbar.adc %i, %g {errors = "e", errors_sha = "0"} : !crossbar.currents<4>, tensor<4xf32> -> tensor<2x4xf32>
  func.return
}
