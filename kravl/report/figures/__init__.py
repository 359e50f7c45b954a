"""Figures of groups of runs: accuracies, spectra, and accuracy against effective rank."""
