// RUN: neuc opt %s -p 'lower-to-cpu{isa=scalar},place-barriers,plan-memory' | filecheck %s
// RUN: neuc opt %s -p 'lower-to-cpu{isa=scalar},place-barriers,plan-memory' | neuc opt - | filecheck %s

// An output that begins as a copy of an input may be that input if nothing reads the input after the copy. The first
// copy of %x is read past by the second, which may be in place; it waits for the first, though both only read %x.
// CHECK: cpu.program @seg0
// CHECK: %[[X:.*]] = cpu.buffer "input" index 0 bytes "32"
// CHECK: cpu.launch @softmax{{.*}}(%[[X]], out %
// CHECK: %[[A:.*]] = cpu.buffer "output" index 1 bytes "32"
// CHECK: cpu.launch @copy_bytes(%[[X]], out %[[A]], "32") work "1" concurrent
// CHECK: %[[B:.*]] = cpu.buffer "output" index 2 over 0 bytes "32"
// CHECK: cpu.launch @copy_bytes(%[[X]], out %[[B]], "32") work "1"
// CHECK-NOT: concurrent

builtin.module attributes {neuc.level = "paradigm"} {
  func.func @main(%x: tensor<8xf32> {onnx.name = "x"}) -> (tensor<8xf32> {onnx.name = "y"}, tensor<8xf32> {onnx.name = "a"}, tensor<8xf32> {onnx.name = "b"}) {
    %0, %1, %2 = func.call @seg0(%x) : (tensor<8xf32>) -> (tensor<8xf32>, tensor<8xf32>, tensor<8xf32>)
    func.return %0, %1, %2 : tensor<8xf32>, tensor<8xf32>, tensor<8xf32>
  }
  func.func @seg0(%x: tensor<8xf32>) -> (tensor<8xf32>, tensor<8xf32>, tensor<8xf32>) attributes {neuc.target = "cpu"} {
    %0 = dense.softmax(%x) {axis = 0} : (tensor<8xf32>) -> tensor<8xf32>
    func.return %0, %x, %x : tensor<8xf32>, tensor<8xf32>, tensor<8xf32>
  }
}
