// RUN: neuc opt %s -p 'lower-to-cpu{isa=scalar},plan-memory' --print-debuginfo | filecheck %s
// RUN: not neuc opt %s -p 'lower-to-cpu{isa=mmx}' 2>&1 | filecheck %s --check-prefix=ISA

// ISA: error[NEUC-E002]: no instruction set 'mmx'

// CHECK: neuc.isa = "scalar"
// CHECK: func.func @main
// CHECK-NEXT: cpu.call @seg0(%x)
// CHECK: cpu.program @seg0 inputs [tensor<?x8xf32, #store.dims<"B", "8">>] outputs [tensor<?x8xf32, #store.dims<"B", "8">>] arena "64*((32*B + 63)//(64))"
// CHECK-NEXT: %[[IN:.*]] = cpu.buffer "input" index 0 bytes "32*B"
// CHECK-NEXT: %[[MID:.*]] = cpu.buffer "arena" bytes "32*B" offset "0"
// CHECK-NEXT: cpu.launch @[[K:softmax[a-z0-9_]*]](%[[IN]], out %[[MID]]{{.*}} loc("first")
// CHECK-NEXT: %[[OUT:.*]] = cpu.buffer "output" index 0 bytes "32*B"
// CHECK-NEXT: cpu.launch @[[K]](%[[MID]], out %[[OUT]]{{.*}} loc("second")
// Two launches, one kernel.
// CHECK: llvm.func @[[K]](%{{.*}}: !llvm.ptr{{.*}}, %{{.*}}: i64{{.*}}, %{{.*}}: i64{{.*}}, %{{.*}}: !llvm.ptr
// CHECK-NOT: llvm.func

builtin.module attributes {neuc.level = "paradigm"} {
  func.func @main(%x: tensor<?x8xf32, #store.dims<"B", "8">> {onnx.name = "x"}) -> (tensor<?x8xf32, #store.dims<"B", "8">> {onnx.name = "y"}) {
    %0 = func.call @seg0(%x) : (tensor<?x8xf32, #store.dims<"B", "8">>) -> tensor<?x8xf32, #store.dims<"B", "8">>
    func.return %0 : tensor<?x8xf32, #store.dims<"B", "8">>
  }
  func.func @seg0(%x: tensor<?x8xf32, #store.dims<"B", "8">>) -> tensor<?x8xf32, #store.dims<"B", "8">> attributes {neuc.target = "cpu"} {
    %0 = dense.softmax(%x) {axis = 1} : (tensor<?x8xf32, #store.dims<"B", "8">>) -> tensor<?x8xf32, #store.dims<"B", "8">> loc("first")
    %1 = dense.softmax(%0) {axis = 1} : (tensor<?x8xf32, #store.dims<"B", "8">>) -> tensor<?x8xf32, #store.dims<"B", "8">> loc("second")
    func.return %1 : tensor<?x8xf32, #store.dims<"B", "8">>
  }
}
