"""Datasets for training, calibration and evaluation: mixes, video folders and question files."""
