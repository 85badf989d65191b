"""The policy of capacity, and the traffic reports that it decides by."""
