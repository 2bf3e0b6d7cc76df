"""Fused ops on pictures, each with its plain torch twin.

Import an op from its own module: a name re-exported here would hide the module of the same stem.
"""
