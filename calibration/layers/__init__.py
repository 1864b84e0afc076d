"""What each layer loses alone, and which stay in floating point."""
