"""Quality and speed of a quantised bundle, compared with the floating-point bundle."""
