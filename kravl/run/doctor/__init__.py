"""What a run needs, checked before it begins, and what it will cost."""
