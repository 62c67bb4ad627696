// RUN: neuc opt %s | neuc opt - | filecheck %s
// RUN: neuc opt %s -p place-barriers,plan-memory | filecheck %s --check-prefix=PLANNED

// Launches of a loop come back as they were; the first in it and the first behind it wait for those before, and what it
// uses shares no memory, as a step reads what the one before wrote.
cpu.program @seg0 inputs [] outputs [] {
  %x = cpu.buffer "arena" bytes "64" : !cpu.buffer_type
  %a = cpu.buffer "arena" bytes "64" : !cpu.buffer_type
  %b = cpu.buffer "arena" bytes "64" : !cpu.buffer_type
  %c = cpu.buffer "arena" bytes "64" : !cpu.buffer_type
  // PLANNED: offset "0"
  // PLANNED: offset "64"
  // PLANNED: offset "128"
  // PLANNED: offset "0"
  cpu.launch @k(out %x) work "1"
  // CHECK: cpu.launch @k(%x, out %a, "t + 1") work "1" for "t" below "T"
  // PLANNED: for "t" below "T"
  // PLANNED-NOT: concurrent
  cpu.launch @k(%x, out %a, "t + 1") work "1" for "t" below "T"
  // CHECK: cpu.launch @k(%a, out %b at "4*t") work "t" for "t" below "T"
  // PLANNED: for "t" below "T"
  // PLANNED-NOT: concurrent
  cpu.launch @k(%a, out %b at "4*t") work "t" for "t" below "T"
  // CHECK: cpu.launch @k(out %c) work "6" grain 2 effort "7*B + 1" scratch "64" concurrent
  // PLANNED: cpu.launch @k(out %c) work "6"
  // PLANNED-NOT: concurrent
  cpu.launch @k(out %c) work "6" grain 2 effort "7*B + 1" scratch "64" concurrent
  cpu.launch @k(%c) work "1"
}
