"""Which updates an adapter can express, and which of them AdamW finds."""
