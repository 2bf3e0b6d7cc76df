"""Models that make clips: one file per family of diffusers."""
