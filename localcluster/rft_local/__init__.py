"""A real Kubernetes cluster on one Linux machine, from real parts, without Docker and without a registry."""
