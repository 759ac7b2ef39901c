"""Attacks: the smallest perturbation, among those tried, that makes a predictor wrong."""
