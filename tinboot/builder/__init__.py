"""Reference value provider: images, volumes and their measurements; proved by rebuilding."""
