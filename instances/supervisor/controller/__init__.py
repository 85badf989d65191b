"""The controller of one instance and the parts that it is made of."""
