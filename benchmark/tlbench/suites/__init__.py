"""Floor 1: suite files, checked once on load into frozen objects."""
