"""Where a run is followed: a file for each tracker, named as in ``tracking=``, with a function ``start``."""
