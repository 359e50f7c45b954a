"""How adapters enter a model, leave it and are stored."""
