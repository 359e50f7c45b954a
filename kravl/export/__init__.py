"""A finished run's model for other libraries, each file scored by the other library alone before it is left there."""
