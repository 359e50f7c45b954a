"""Finished runs: the config and the model that their folders hold, loaded again, evaluated on, trained on from."""
