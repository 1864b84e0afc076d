"""Stage-by-stage comparison of two pipelines: PyTorch, bundles, engines."""
