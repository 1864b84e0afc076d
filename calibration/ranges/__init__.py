"""Statistics of activations, collected on videos and questions, and the ranges chosen from them."""
