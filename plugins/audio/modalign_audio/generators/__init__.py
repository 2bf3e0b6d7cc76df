"""Models that make sounds: one file per family of diffusers."""
