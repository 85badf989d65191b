"""The routing table: instances and keys in memory."""
