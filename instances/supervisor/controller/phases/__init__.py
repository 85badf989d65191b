"""The phases of a supervised instance, with the steps and events of each."""
