"""Target families, one folder each: target description, lowering pipeline, program emission, cost model."""
