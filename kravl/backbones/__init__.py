"""Pretrained classifiers: images (b, 3, h, w) -> logits (b, classes)."""
