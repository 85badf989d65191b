"""Figures of requests: the tokens of a response, and the recorders that read ended exchanges."""
