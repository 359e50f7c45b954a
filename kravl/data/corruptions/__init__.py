"""ImageNet-C's corruptions, of any set."""
