"""The scheduler of a node and the traffic that it decides by."""
