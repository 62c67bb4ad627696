// Operations of mlir-aie's aie dialect that neuc writes in generic form, in IRDL: operands, results, required attributes
// and regions, from the dialect's documentation (mlir-aie 1.4). For: mlir-opt --irdl-file=aie.irdl.mlir
//
// A name stands for one value in an operation, so that equal constraints have names of their own. IRDL knows no
// terminators, no points in names, and one name space for operations and types: in what is checked, regions end in
// neuc.end, aie.objectfifo.link is aie.objectfifo_link, and elemType is the bare memref (`generic_aie.checkable`).
// It says nothing of symbols.
irdl.dialect @aie {
  // A design for one device: a region of tiles, FIFOs, links and cores.
  irdl.operation @device {
    %device = irdl.any
    irdl.attributes { "device" = %device }
    %body = irdl.region with size 1
    irdl.regions(body_region: %body)
  }

  // A tile by column and row.
  irdl.operation @tile {
    %col = irdl.any
    %row = irdl.any
    %index = irdl.is index
    irdl.attributes { "col" = %col, "row" = %row }
    irdl.results(result: %index)
  }

  // A circular buffer from a tile to one or more others, of elements of one memref type.
  irdl.operation @objectfifo {
    %index = irdl.is index
    %name = irdl.base "#builtin.string"
    %depth = irdl.any
    %type = irdl.base "#builtin.type"
    %dims = irdl.base "#builtin.array"
    irdl.operands(producer_tile: %index, consumer_tiles: variadic %index)
    irdl.attributes {
      "sym_name" = %name, "elemNumber" = %depth, "elemType" = %type, "dimensionsToStream" = %dims
    }
  }

  // Memory of a tile that its core alone uses.
  irdl.operation @buffer {
    %index = irdl.is index
    %name = irdl.base "#builtin.string"
    %memory = irdl.base "!builtin.memref"
    irdl.operands(tile: %index)
    irdl.attributes { "sym_name" = %name }
    irdl.results(buffer: %memory)
  }

  // What runs on a core's processor.
  irdl.operation @core {
    %index = irdl.is index
    %size = irdl.any
    irdl.operands(tile: %index)
    irdl.attributes { "stack_size" = %size }
    irdl.results(result: %index)
    %body = irdl.region with size 1
    irdl.regions(body: %body)
  }

  // FIFOs that meet in a memory tile: one to one, one to parts of it, or parts to one.
  irdl.operation @objectfifo_link {
    %ins = irdl.base "#builtin.array"
    %outs = irdl.base "#builtin.array"
    %src = irdl.base "#builtin.array"
    %dst = irdl.base "#builtin.array"
    irdl.attributes { "fifoIns" = %ins, "fifoOuts" = %outs, "src_offsets" = %src, "dst_offsets" = %dst }
  }

  // The next element of a FIFO; port 0 produces, 1 consumes.
  irdl.operation @objectfifo_acquire {
    %fifo = irdl.base "#builtin.symbol_ref"
    %zero = irdl.is 0 : i32
    %one = irdl.is 1 : i32
    %port = irdl.any_of(%zero, %one)
    %size = irdl.is 1 : i32
    %element = irdl.base "!builtin.memref"
    irdl.attributes { "objFifo_name" = %fifo, "port" = %port, "size" = %size }
    irdl.results(element: %element)
  }

  // An element given back, or handed on.
  irdl.operation @objectfifo_release {
    %fifo = irdl.base "#builtin.symbol_ref"
    %zero = irdl.is 0 : i32
    %one = irdl.is 1 : i32
    %port = irdl.any_of(%zero, %one)
    %size = irdl.is 1 : i32
    irdl.attributes { "objFifo_name" = %fifo, "port" = %port, "size" = %size }
  }
}
