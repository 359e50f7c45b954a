"""Published accuracies: the files of datasets/published, and runs beside them."""
