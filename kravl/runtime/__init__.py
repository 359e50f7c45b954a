"""What every room may use: errors, files, locks, signals, ranks, memory."""
