// RUN: neuc opt %s | filecheck %s
// RUN: neuc opt %s | neuc opt - | filecheck %s

// An MLP: the current of the first layer does not change and is computed once; IF neurons with soft reset.
func.func @main(%x: tensor<?x784xf32, #store.dims<"B", "784">>, %w1: tensor<128x784xf32>, %w2: tensor<10x128xf32>, %b2: tensor<10xf32>) -> tensor<?x10xf32, #store.dims<"B", "10">> {
  %theta = store.constant value dense<1.0> : tensor<f32> : tensor<f32>
  %half = store.constant value dense<0.5> : tensor<f32> : tensor<f32>
  %zero = store.constant value dense<0.0> : tensor<f32> : tensor<f32>
  %v0 = dense.broadcast(%half) : (tensor<f32>) -> tensor<?x128xf32, #store.dims<"B", "128">>
  %y0 = dense.broadcast(%zero) : (tensor<f32>) -> tensor<?x10xf32, #store.dims<"B", "10">>
  // CHECK: %i1 = spike.linear(%x, %w1) : (tensor<?x784xf32, #store.dims<"B", "784">>, tensor<128x784xf32>) -> tensor<?x128xf32, #store.dims<"B", "128">>
  %i1 = spike.linear(%x, %w1) : (tensor<?x784xf32, #store.dims<"B", "784">>, tensor<128x784xf32>) -> tensor<?x128xf32, #store.dims<"B", "128">>
  // CHECK-NEXT: %spikes, %v, %y = spike.loop scan() init(%v0, %y0) : (), (tensor<?x128xf32, #store.dims<"B", "128">>, tensor<?x10xf32, #store.dims<"B", "10">>) steps 8 -> (tensor<8x?x128x!spike.event<binary>, #store.dims<"8", "B", "128">>) {
  // CHECK-NEXT: ^step(%t: tensor<i64>, %v1: tensor<?x128xf32, #store.dims<"B", "128">>, %y1: tensor<?x10xf32, #store.dims<"B", "10">>):
  %spikes, %v, %y = spike.loop scan() init(%v0, %y0) : (), (tensor<?x128xf32, #store.dims<"B", "128">>, tensor<?x10xf32, #store.dims<"B", "10">>) steps 8 -> (tensor<8x?x128x!spike.event<binary>, #store.dims<"8", "B", "128">>) {
  ^step(%t: tensor<i64>, %v1: tensor<?x128xf32, #store.dims<"B", "128">>, %y1: tensor<?x10xf32, #store.dims<"B", "10">>):
    // CHECK-NEXT: %s, %v2 = spike.if(%i1, %v1, %theta) {fire = gt} : (tensor<?x128xf32, #store.dims<"B", "128">>, tensor<?x128xf32, #store.dims<"B", "128">>, tensor<f32>) -> (tensor<?x128x!spike.event<binary>, #store.dims<"B", "128">>, tensor<?x128xf32, #store.dims<"B", "128">>)
    %s, %v2 = spike.if(%i1, %v1, %theta) {reset = soft, fire = gt} : (tensor<?x128xf32, #store.dims<"B", "128">>, tensor<?x128xf32, #store.dims<"B", "128">>, tensor<f32>) -> (tensor<?x128x!spike.event<binary>, #store.dims<"B", "128">>, tensor<?x128xf32, #store.dims<"B", "128">>)
    %i2 = spike.linear(%s, %w2, %b2) : (tensor<?x128x!spike.event<binary>, #store.dims<"B", "128">>, tensor<10x128xf32>, tensor<10xf32>) -> tensor<?x10xf32, #store.dims<"B", "10">>
    // CHECK: spike.accumulate(%i2, %y1, %t) {start = 2}
    %y2 = spike.accumulate(%i2, %y1, %t) {start = 2} : (tensor<?x10xf32, #store.dims<"B", "10">>, tensor<?x10xf32, #store.dims<"B", "10">>, tensor<i64>) -> tensor<?x10xf32, #store.dims<"B", "10">>
    // CHECK-NEXT: spike.yield outputs(%s) states(%v2, %y2) : (tensor<?x128x!spike.event<binary>, #store.dims<"B", "128">>), (tensor<?x128xf32, #store.dims<"B", "128">>, tensor<?x10xf32, #store.dims<"B", "10">>)
    spike.yield outputs(%s) states(%v2, %y2) : (tensor<?x128x!spike.event<binary>, #store.dims<"B", "128">>), (tensor<?x128xf32, #store.dims<"B", "128">>, tensor<?x10xf32, #store.dims<"B", "10">>)
  }
  func.return %y : tensor<?x10xf32, #store.dims<"B", "10">>
}

// Steps may be symbolic; spikes from outside are scanned and move through dense operations as they are.
// CHECK: func.func @streamed
func.func @streamed(%x: tensor<?x?x2x4x!spike.event<signed>, #store.dims<"T", "B", "2", "4">>) -> tensor<?x?x8x!spike.event<signed>, #store.dims<"T", "B", "8">> {
  %nothing = spike.silence() : () -> tensor<3x?x8x!spike.event<signed>, #store.dims<"3", "B", "8">>
  // CHECK: %y, %r = spike.loop scan(%x) init(%nothing)
  // CHECK-SAME: steps "T" ->
  %y, %r = spike.loop scan(%x) init(%nothing) : (tensor<?x?x2x4x!spike.event<signed>, #store.dims<"T", "B", "2", "4">>), (tensor<3x?x8x!spike.event<signed>, #store.dims<"3", "B", "8">>) steps "T" -> (tensor<?x?x8x!spike.event<signed>, #store.dims<"T", "B", "8">>) {
  ^step(%t: tensor<i64>, %x_t: tensor<?x2x4x!spike.event<signed>, #store.dims<"B", "2", "4">>, %ring: tensor<3x?x8x!spike.event<signed>, #store.dims<"3", "B", "8">>):
    // CHECK: %f = dense.reshape(%x_t) : (tensor<?x2x4x!spike.event<signed>, #store.dims<"B", "2", "4">>) -> tensor<?x8x!spike.event<signed>, #store.dims<"B", "8">>
    %f = dense.reshape(%x_t) : (tensor<?x2x4x!spike.event<signed>, #store.dims<"B", "2", "4">>) -> tensor<?x8x!spike.event<signed>, #store.dims<"B", "8">>
    // CHECK-NEXT: %late, %ring2 = spike.delay(%f, %ring)
    %late, %ring2 = spike.delay(%f, %ring) : (tensor<?x8x!spike.event<signed>, #store.dims<"B", "8">>, tensor<3x?x8x!spike.event<signed>, #store.dims<"3", "B", "8">>) -> (tensor<?x8x!spike.event<signed>, #store.dims<"B", "8">>, tensor<3x?x8x!spike.event<signed>, #store.dims<"3", "B", "8">>)
    spike.yield outputs(%late) states(%ring2) : (tensor<?x8x!spike.event<signed>, #store.dims<"B", "8">>), (tensor<3x?x8x!spike.event<signed>, #store.dims<"3", "B", "8">>)
  }
  func.return %y : tensor<?x?x8x!spike.event<signed>, #store.dims<"T", "B", "8">>
}
