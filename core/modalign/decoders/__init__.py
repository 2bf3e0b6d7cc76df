"""Decoders of kind draws and codes: what scores and makes media, and what prepares rows for it."""
