"""Nodes: the hosts that run instances."""
