"""Boards to pages: self-contained files that need no server, no network and no script to be read."""
