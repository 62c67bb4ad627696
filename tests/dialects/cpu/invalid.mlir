// RUN: neuc opt %s --split-input-file --verify-diagnostics | filecheck %s

// CHECK: a check ends in cpu.expect
cpu.program @seg0 inputs [] outputs [] {
  cpu.check {
    %s = cpu.buffer "arena" bytes "64" : !cpu.buffer_type
  }
}

// -----

// CHECK: size '4*B' in a cpu.check is no plain integer
cpu.program @seg0 inputs [] outputs [] {
  cpu.check {
    %s = cpu.buffer "arena" bytes "4*B" : !cpu.buffer_type
    cpu.expect %s is "check.k" stride 1
  }
}

// -----

// CHECK: size 'B' in a cpu.check is no plain integer
cpu.program @seg0 inputs [] outputs [] {
  cpu.check {
    %s = cpu.buffer "arena" bytes "64" : !cpu.buffer_type
    cpu.launch @k(%s, "B") work "1"
    cpu.expect %s is "check.k" stride 1
  }
}

// -----

// CHECK: buffers of a check are weights, or arena buffers without an offset
cpu.program @seg0 inputs [] outputs [] {
  cpu.check {
    %s = cpu.buffer "output" index 0 bytes "64" : !cpu.buffer_type
    cpu.expect %s is "check.k" stride 1
  }
}

// -----

// CHECK: cpu.require in a cpu.check: only cpu.buffer and cpu.launch may stand here
cpu.program @seg0 inputs [] outputs [] {
  cpu.check {
    %s = cpu.buffer "arena" bytes "64" : !cpu.buffer_type
    cpu.require "B" is zero
    cpu.expect %s is "check.k" stride 1
  }
}

// -----

// CHECK: 'a b' is no symbol
cpu.program @seg0 inputs [] outputs [] {
  cpu.launch @k() work "1" for "a b" below "T"
}
