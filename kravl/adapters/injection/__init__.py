"""How adapters are put into a model, removed from it and stored."""
