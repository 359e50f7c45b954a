"""The folder of a run, and Weights & Biases."""
