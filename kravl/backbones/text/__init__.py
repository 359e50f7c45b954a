"""The text tower, and how class names become features."""
