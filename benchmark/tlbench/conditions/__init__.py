"""What is done to target images before a predictor sees them: nothing, a transform, a corruption or an attack."""
