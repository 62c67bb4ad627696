"""Analog crossbars for their user: accuracy against time, pictures, files for a lab. Physics is in `runtime/analog`."""
