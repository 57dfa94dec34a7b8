"""The REST APIs: the service's own, and those that other programs speak already."""
