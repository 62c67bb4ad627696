"""What a design can be written as: Riallto's JSON, mlir-aie text, generic MLIR, Graphviz, SVG and an HTML page."""
