"""Vision features of videos: encoding frames, and the store that keeps the results."""
