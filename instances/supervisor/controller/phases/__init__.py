"""The phases of a supervised instance: what the controller does next, and on which events."""
