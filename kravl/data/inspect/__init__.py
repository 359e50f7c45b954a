"""Data sets listed, verified and looked at."""
