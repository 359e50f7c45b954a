"""What a model is made of: its blocks, every matrix's tower and kind, presets of them, and their work."""
