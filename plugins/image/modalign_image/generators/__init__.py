"""Models that make pictures: one file per family of diffusers."""
