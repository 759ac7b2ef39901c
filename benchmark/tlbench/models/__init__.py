"""Floor 2: backbones, heads, and the reduction of their outputs to stored predictions."""
