"""Many finished runs: groups, tables, tests, figures, pages."""
