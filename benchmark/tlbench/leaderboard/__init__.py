"""Floor 3, the reading wing: records to scores, intervals and ranks, without PyTorch."""
