"""NPU machines and dataflow programs: the machine model, the program's schema, and the discrete-event simulator."""
