// RUN: neuc opt %s | filecheck %s
// RUN: neuc opt %s --print-op-generic | neuc opt - | filecheck %s
// RUN: neuc opt %s --print-debuginfo | filecheck %s --check-prefix=LOC
// RUN: neuc opt %s -p dce | filecheck %s --check-prefix=DCE

// CHECK-LABEL: func.func @main
// CHECK: %{{.*}} = store.constant value dense<1.000000e+00> : tensor<2xf32> : tensor<2xf32>
// LOC: loc("conv1/weight")
// DCE-LABEL: func.func @main
// DCE-NOT: store.constant
func.func @main() {
  %0 = store.constant value dense<1.0> : tensor<2xf32> : tensor<2xf32> loc("conv1/weight")
  func.return
}
