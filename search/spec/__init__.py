"""The spec: its model, how it is read, its paths, and how it travels to a cluster."""
