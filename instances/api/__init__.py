"""Management API of the instances and of the backends' tools."""
