"""A grid of runs as one command: ``python -m kravl.study experiments/studies/tiny.yaml``."""
