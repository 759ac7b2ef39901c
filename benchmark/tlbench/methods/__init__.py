"""Floor 3: transfer methods, from a backbone and source data to a predictor; one method a file."""
