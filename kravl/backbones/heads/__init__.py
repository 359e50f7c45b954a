"""Heads on fixed image features: one file a method."""
