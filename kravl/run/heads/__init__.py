"""A run whose classifier is a head on features: checked, its features computed once, fitted."""
