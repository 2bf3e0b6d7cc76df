"""The video plugin of modalign."""
