// RUN: neuc opt %s --split-input-file --verify-diagnostics | filecheck %s

// A module that parses but does not verify names the line of the operation.
// CHECK: error[NEUC-E251]: opt_errors.mlir:6: store.constant: needs either an entry or an inline value
func.func @neither() {
  %0 = store.constant : tensor<2xf32>
  func.return
}

// -----

// CHECK: error[NEUC-E250]: opt_errors.mlir:15:3: Expected
func.func @no_type() {
  %0 = store.constant dense<1.0>
  func.return
}

// -----

// CHECK: func.func @fine
func.func @fine() {
  func.return
}
