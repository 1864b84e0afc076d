"""Data for training, calibration and evaluation: mixes, video folders, question files."""
