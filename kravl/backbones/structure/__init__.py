"""What a model is made of: its blocks, every matrix's tower and kind, and presets of them."""
