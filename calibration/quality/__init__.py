"""Two bundles on held-out questions: answers, closeness, speed."""
