"""Writers of model formats, one file a format."""
