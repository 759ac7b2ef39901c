"""A small made-up copy of a suite's data, in exactly the layouts of the originals."""
