"""Usage of each key and instance: sums of hours and days, written in batches."""
