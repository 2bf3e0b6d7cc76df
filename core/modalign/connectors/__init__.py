"""Connectors: an encoder's embeddings to the width of a backbone.

Import a connector from its own module; each is made by `Connector.make(width, out, **settings)`.
"""
