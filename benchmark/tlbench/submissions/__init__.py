"""Floor 4: a run to a pull request, and every published number computed again from its predictions."""
