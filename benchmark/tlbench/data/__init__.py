"""Floor 2: domains, their splits, and the cache of resized images."""
