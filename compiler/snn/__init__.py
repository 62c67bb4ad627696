"""Networks of spikes from networks of numbers, without training: calibration, conversion, sweeps and reports."""
