// RUN: neuc opt %s -p fuse-maps --print-debuginfo | filecheck %s

// CHECK-LABEL: func.func @chain
// CHECK: %{{.*}} = dense.map(%x, %y) : (tensor<?x4xf32, #store.dims<"B", "4">>, tensor<4xf32>)
// CHECK: math.exp
// CHECK: arith.addf
// CHECK: loc(fused["exp", "add"])
// CHECK-NOT: dense.map

// Four exponentials would become 4·B: left alone.
// CHECK-LABEL: func.func @smaller
// CHECK: dense.map(%y)
// CHECK: dense.map(%x, %{{.*}})

builtin.module {
  func.func @chain(%x: tensor<?x4xf32, #store.dims<"B", "4">>, %y: tensor<4xf32>) -> tensor<?x4xf32, #store.dims<"B", "4">> {
    %0 = dense.map(%x) : (tensor<?x4xf32, #store.dims<"B", "4">>) -> tensor<?x4xf32, #store.dims<"B", "4">> {
    ^bb0(%p: f32):
      %e = math.exp %p : f32
      dense.yield %e : f32
    } loc("exp")
    %1 = dense.map(%0, %y) : (tensor<?x4xf32, #store.dims<"B", "4">>, tensor<4xf32>) -> tensor<?x4xf32, #store.dims<"B", "4">> {
    ^bb0(%p: f32, %q: f32):
      %s = arith.addf %p, %q : f32
      dense.yield %s : f32
    } loc("add")
    func.return %1 : tensor<?x4xf32, #store.dims<"B", "4">>
  }
  func.func @smaller(%x: tensor<?x4xf32, #store.dims<"B", "4">>, %y: tensor<4xf32>) -> tensor<?x4xf32, #store.dims<"B", "4">> {
    %0 = dense.map(%y) : (tensor<4xf32>) -> tensor<4xf32> {
    ^bb0(%p: f32):
      %e = math.exp %p : f32
      dense.yield %e : f32
    }
    %1 = dense.map(%x, %0) : (tensor<?x4xf32, #store.dims<"B", "4">>, tensor<4xf32>) -> tensor<?x4xf32, #store.dims<"B", "4">> {
    ^bb0(%p: f32, %q: f32):
      %s = arith.addf %p, %q : f32
      dense.yield %s : f32
    }
    func.return %1 : tensor<?x4xf32, #store.dims<"B", "4">>
  }
}
