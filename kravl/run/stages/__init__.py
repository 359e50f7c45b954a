"""A run in stages: its plan, and the training of each."""
