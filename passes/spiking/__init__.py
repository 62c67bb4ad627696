"""How `convert-ann-to-snn` builds a spiking network, one file for each kind of operation."""
