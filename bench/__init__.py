"""Measures, for a person to read: nothing here asserts a time. Run by hand."""
