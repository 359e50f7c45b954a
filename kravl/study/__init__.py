"""A grid of runs as one command: ``kravl study experiments/studies/tiny.yaml``."""
