"""One reader a kind of source: each lists a domain's images, labels and clusters."""
