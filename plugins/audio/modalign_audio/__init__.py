"""The audio plugin of modalign."""
