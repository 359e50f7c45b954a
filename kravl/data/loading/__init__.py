"""From samples to batches on a device."""
