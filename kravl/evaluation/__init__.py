"""Predictions, their metrics, and WiSE-FT."""
