// RUN: neuc opt %s -p 'lower-to-cpu{isa=scalar},place-barriers,plan-memory' | filecheck %s

// A map may write where its first operand lies if nothing reads that operand afterwards, as an optimiser does. The mean
// %m is read again, and %d has fewer elements, so only the weights may stay where they are.
// CHECK: cpu.program @seg0
// CHECK-DAG: cpu.buffer "output" index 0 over 0 bytes "32"
// CHECK-DAG: cpu.buffer "output" index 1 bytes "32"
// CHECK-DAG: cpu.buffer "output" index 2 bytes "32"

builtin.module attributes {neuc.level = "paradigm"} {
  func.func @main(%w: tensor<8xf32> {onnx.name = "w"}, %m: tensor<8xf32> {onnx.name = "m"}, %d: tensor<1xf32> {onnx.name = "d"}) -> (tensor<8xf32> {onnx.name = "next_w"}, tensor<8xf32> {onnx.name = "next_m"}, tensor<8xf32> {onnx.name = "spread"}) {
    %0, %1, %2 = func.call @seg0(%w, %m, %d) : (tensor<8xf32>, tensor<8xf32>, tensor<1xf32>) -> (tensor<8xf32>, tensor<8xf32>, tensor<8xf32>)
    func.return %0, %1, %2 : tensor<8xf32>, tensor<8xf32>, tensor<8xf32>
  }
  func.func @seg0(%w: tensor<8xf32>, %m: tensor<8xf32>, %d: tensor<1xf32>) -> (tensor<8xf32>, tensor<8xf32>, tensor<8xf32>) attributes {neuc.target = "cpu"} {
    %0 = dense.map(%m, %d) : (tensor<8xf32>, tensor<1xf32>) -> tensor<8xf32> {
    ^bb0(%a: f32, %b: f32):
      %s = arith.addf %a, %b : f32
      dense.yield %s : f32
    }
    %1 = dense.map(%w, %m) : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32> {
    ^bb0(%a: f32, %b: f32):
      %s = arith.subf %a, %b : f32
      dense.yield %s : f32
    }
    %2 = dense.map(%d, %m) : (tensor<1xf32>, tensor<8xf32>) -> tensor<8xf32> {
    ^bb0(%a: f32, %b: f32):
      %s = arith.mulf %a, %b : f32
      dense.yield %s : f32
    }
    func.return %1, %0, %2 : tensor<8xf32>, tensor<8xf32>, tensor<8xf32>
  }
}
