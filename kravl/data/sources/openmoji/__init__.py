"""Pictograms drawn from the OpenMoji fonts."""
