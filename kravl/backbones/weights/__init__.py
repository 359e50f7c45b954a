"""Pretrained weights: where they come from, whose layout a file has, and how they get into a model."""
