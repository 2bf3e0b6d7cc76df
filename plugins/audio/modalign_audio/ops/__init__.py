"""Fused ops on sounds, each with its plain torch twin. Import an op from its own module."""
