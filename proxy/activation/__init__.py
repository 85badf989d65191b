"""Activation of instances by requests."""
