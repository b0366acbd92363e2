"""How Weir is run: the embedded stack, container images, compose and Kubernetes files."""
