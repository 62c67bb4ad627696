// RUN: neuc opt %s -p 'mark-neurons{group=2},group-neurons' | filecheck %s
// RUN: not neuc opt %s -p 'mark-neurons{recipe="b" group=2}' 2>&1 | filecheck %s --check-prefix=GRADED
// RUN: not neuc opt %s -p 'mark-neurons{group=0}' 2>&1 | filecheck %s --check-prefix=NONE
// GRADED: NEUC-E527
// NONE: NEUC-E527

// Two neurons of one current, a quarter of a threshold below and above the half that first potentials are otherwise.
// CHECK-LABEL: func.func @main
// CHECK-SAME: %[[X:[^:]*]]: tensor<2x3xf32>
// CHECK: %[[A:.*]] = dense.map(%[[X]]) attributes {{.*}}spike.potential = array<f32: 2.500000e-01, 2.500000e-01, 2.500000e-01>
// CHECK: %[[B:.*]] = dense.map(%[[X]]) attributes {{.*}}spike.potential = array<f32: 7.500000e-01, 7.500000e-01, 7.500000e-01>

// A product of each, with half its weights, and their sum; the bias once.
// CHECK: dense<{{.*}}5.000000e-01], [1.000000e+00], [1.500000e+00]]>
// CHECK: %[[P:.*]] = dense.matmul(%[[A]], %{{.*}}, %{{.*}}) : (tensor<2x3xf32>, tensor<3x1xf32>, tensor<1xf32>) -> tensor<2x1xf32>
// CHECK: %[[Q:.*]] = dense.matmul(%[[B]], %{{.*}}) : (tensor<2x3xf32>, tensor<3x1xf32>) -> tensor<2x1xf32>
// CHECK: %[[SUM:.*]] = dense.map(%[[P]], %[[Q]])

// What else reads the numbers reads their mean.
// CHECK: %[[HALF:.*]] = dense.map(%[[A]]) : (tensor<2x3xf32>)
// CHECK: arith.mulf
// CHECK: %[[OTHER:.*]] = dense.map(%[[B]]) : (tensor<2x3xf32>)
// CHECK: %[[MEAN:.*]] = dense.map(%[[HALF]], %[[OTHER]])
// CHECK: func.return %[[SUM]], %[[MEAN]]

builtin.module {
  func.func @main(%x: tensor<2x3xf32>) -> (tensor<2x1xf32>, tensor<2x3xf32>) {
    %w = store.constant value dense<[[1.0], [2.0], [3.0]]> : tensor<3x1xf32> : tensor<3x1xf32>
    %b = store.constant value dense<[4.0]> : tensor<1xf32> : tensor<1xf32>
    %0 = dense.map(%x) : (tensor<2x3xf32>) -> tensor<2x3xf32> {
    ^bb0(%a: f32):
      %z = arith.constant 0.0 : f32
      %r = arith.maximumf %a, %z : f32
      dense.yield %r : f32
    }
    %1 = dense.matmul(%0, %w, %b) : (tensor<2x3xf32>, tensor<3x1xf32>, tensor<1xf32>) -> tensor<2x1xf32>
    func.return %1, %0 : tensor<2x1xf32>, tensor<2x3xf32>
  }
}
