"""One run: built, trained, evaluated, recorded, restored."""
