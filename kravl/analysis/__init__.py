"""What an update is: spectra of finished runs, matrix approximation."""
