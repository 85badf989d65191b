"""Desired and observed state of the instances, in memory and in the database."""
