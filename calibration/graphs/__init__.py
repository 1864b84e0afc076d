"""Rewriting graphs: linear layers in INT8 and INT4, and the bundles made of them."""
