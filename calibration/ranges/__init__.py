"""What the layers read: samples run through observed graphs, histograms, ranges."""
