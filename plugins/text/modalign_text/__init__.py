"""The text plugin of modalign."""
