"""Features of a video: encoding frames with the vision tower, and keeping the result."""
