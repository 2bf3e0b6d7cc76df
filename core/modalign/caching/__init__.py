"""What parts that do not train gave: kept within a step, and on disk where a folder is given."""
