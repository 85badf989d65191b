"""The pages of a live llamactl in a real Chromium."""
