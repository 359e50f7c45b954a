"""One self-contained page that compares runs: a table, charts and pictures that open from disk."""
