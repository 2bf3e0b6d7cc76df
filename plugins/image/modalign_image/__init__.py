"""The image plugin of modalign."""
