"""Two pipelines side by side, stage by stage: PyTorch, bundles, engines."""
