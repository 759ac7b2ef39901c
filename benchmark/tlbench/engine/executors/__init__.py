"""Ways to map the execution of fits over a machine or a cluster."""
