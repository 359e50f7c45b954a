"""Which updates an adapter can express, and which AdamW finds."""
