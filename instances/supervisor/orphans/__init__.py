"""The orphan guard: a process that ends the backends of a node without a worker."""
