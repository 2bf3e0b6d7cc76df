"""Generators of diffusers: pipelines as models whose decoder is a denoiser; families are files of the plugins."""
