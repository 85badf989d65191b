"""The tests: folders mirror the tree, and tests/support holds shared helpers."""
