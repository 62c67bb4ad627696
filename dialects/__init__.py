"""neuc's dialects: one file each. No passes, no file formats of models, nothing of the runtime."""
