"""Families of models: one module each, of what is the family's own."""
