"""The rows of the digits table, one file a family of models."""
