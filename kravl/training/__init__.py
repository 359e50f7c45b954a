"""Learner, optimiser, trainer, callbacks, checkpoints."""
