"""Post-training quantisation of a bundle, calibrated and measured on videos and questions."""
