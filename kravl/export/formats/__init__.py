"""One file a format: what it writes, and in one line what it cannot hold."""
