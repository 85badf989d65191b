"""Request bodies: reading, routing by model, and uploads."""
