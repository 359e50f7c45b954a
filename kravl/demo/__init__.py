"""A page on this machine where images are dropped and scored before and after adaptation: ``kravl demo``."""
