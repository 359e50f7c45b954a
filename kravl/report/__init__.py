"""Reports on many finished runs: groups, tables, significance tests, figures, pages."""
