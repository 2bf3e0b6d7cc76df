"""See the README of this folder or its modules."""
