"""slmops: a Kubernetes operator for the life of small language models."""

__version__ = "0.1.0"
