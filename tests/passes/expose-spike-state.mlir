// RUN: neuc opt %s --split-input-file -p expose-spike-state | filecheck %s

// What counts steps goes on counting, and is no state; potentials go in and out.
// CHECK: neuc.facts = {spike_state = "{\22states\22: {\22state0\22: \22state0_out\22}, \22steps\22: 8}"}
// CHECK: func.func @main(%x: tensor<2x3xf32>, %theta: tensor<1xf32>, %[[TICKS:.*]]: tensor<?xi8, #store.dims<"T">> {onnx.name = "ticks"}, %[[FRESH:.*]]: tensor<i1> {onnx.name = "fresh"}, %[[FIRST:.*]]: tensor<i64> {onnx.name = "first"}, %[[GIVEN:.*]]: tensor<2x3xf32> {onnx.name = "state0"})
// CHECK: %[[BEGIN:.*]] = dense.map(%[[FRESH]], %v0, %[[GIVEN]])
// CHECK: arith.select
// CHECK: spike.loop scan(%[[TICKS]]) {{.*}}init(%[[BEGIN]], %zero) {{.*}} steps "T"
// CHECK: dense.map(%{{.*}}, %[[FIRST]])
// CHECK: arith.addi
// CHECK: func.return
builtin.module {
  func.func @main(%x: tensor<2x3xf32>, %theta: tensor<1xf32>) -> (tensor<2x3xf32>, tensor<f32>) {
    %v0 = store.constant value dense<0.5> : tensor<2x3xf32> : tensor<2x3xf32>
    %zero = store.constant value dense<0.0> : tensor<f32> : tensor<f32>
    %v, %count = spike.loop scan() init(%v0, %zero) : (), (tensor<2x3xf32>, tensor<f32>) steps 8 -> () {
    ^bb0(%t: tensor<i64>, %u: tensor<2x3xf32>, %unused: tensor<f32>):
      %s, %u2 = spike.if(%x, %u, %theta) : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<1xf32>) -> (tensor<2x3x!spike.event<binary>>, tensor<2x3xf32>)
      %n = dense.map(%t) : (tensor<i64>) -> tensor<f32> {
      ^bb1(%i: i64):
        %f = arith.sitofp %i : i64 to f32
        dense.yield %f : f32
      }
      spike.yield outputs() states(%u2, %n) : (), (tensor<2x3xf32>, tensor<f32>)
    }
    func.return %v, %count : tensor<2x3xf32>, tensor<f32>
  }
}

// -----

// A delayed read-out is a sum with shares of 0 and 1; the encoder's numbers go by the sample's place.
// CHECK: neuc.facts = {spike_state = "{\22placed\22: true, \22start\22: 3, \22states\22: {\22state0\22: \22state0_out\22}, \22steps\22: 8}"}
// CHECK: func.func @main({{.*}}, %[[FIRST:.*]]: tensor<i64> {onnx.name = "first"}
// CHECK: %[[STEP:.*]] = dense.map(%t, %[[FIRST]])
// CHECK: spike.encode_rate(%x, %[[STEP]])
// CHECK: %[[SHARE:.*]] = dense.map(%[[STEP]])
// CHECK: arith.cmpi sge
// CHECK: dense.map(%{{.*}}, %{{.*}}, %[[SHARE]])
// CHECK-NOT: spike.accumulate
builtin.module {
  func.func @main(%x: tensor<2x3xf32>, %w: tensor<3x3xf32>) -> tensor<2x3xf32> {
    %zero = store.constant value dense<0.0> : tensor<2x3xf32> : tensor<2x3xf32>
    %sum = spike.loop scan() init(%zero) : (), (tensor<2x3xf32>) steps 8 -> () {
    ^bb0(%t: tensor<i64>, %total: tensor<2x3xf32>):
      %s = spike.encode_rate(%x, %t) {seed = 7} : (tensor<2x3xf32>, tensor<i64>) -> tensor<2x3x!spike.event<binary>>
      %i = spike.linear(%s, %w) : (tensor<2x3x!spike.event<binary>>, tensor<3x3xf32>) -> tensor<2x3xf32>
      %next = spike.accumulate(%i, %total, %t) {start = 3} : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<i64>) -> tensor<2x3xf32>
      spike.yield outputs() states(%next) : (), (tensor<2x3xf32>)
    }
    func.return %sum : tensor<2x3xf32>
  }
}
