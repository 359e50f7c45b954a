"""The fifteen corruptions of ImageNet-C by their formulas, one file a family (https://arxiv.org/abs/1903.12261)."""
