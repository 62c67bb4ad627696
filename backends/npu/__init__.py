"""The NPU backend: placement, routing and resources of dataflow graphs, an independent checker, and exports."""
