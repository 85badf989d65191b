"""Instances: the domain of llamactl. Options, states, rules, and a node's supervisor."""
