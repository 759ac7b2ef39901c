"""Floor 1: what is stored, one row a number, and where; the meeting point of the two wings."""
