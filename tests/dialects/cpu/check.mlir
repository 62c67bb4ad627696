// RUN: neuc opt %s | filecheck %s
// RUN: neuc opt %s | neuc opt - | filecheck %s
// RUN: neuc opt %s --print-op-generic | neuc opt - | filecheck %s

// CHECK-LABEL: cpu.program @seg0
cpu.program @seg0 inputs [] outputs [] {
  // CHECK: cpu.check {
  // CHECK-NEXT: %[[Q:.*]] = cpu.buffer "weight" entry "check.codes8" bytes "72" : !cpu.buffer_type
  // CHECK-NEXT: %[[S:.*]] = cpu.buffer "arena" bytes "64" : !cpu.buffer_type
  // CHECK-NEXT: cpu.launch @k(%[[Q]], %[[S]], "1") work "16" scratch "128"
  // CHECK-NEXT: cpu.expect %[[S]] is "check.k" stride 16
  cpu.check {
    %q = cpu.buffer "weight" entry "check.codes8" bytes "72" : !cpu.buffer_type
    %s = cpu.buffer "arena" bytes "64" : !cpu.buffer_type
    cpu.launch @k(%q, %s, "1") work "16" scratch "128"
    cpu.expect %s is "check.k" stride 16
  }
}
