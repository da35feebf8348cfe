"""Bugs put into a copy of the source, one at a time, each of which a test must notice (`make mutants`).

A table is a file here with `MUTANTS = (Mutant(what, file, old, new, tests), …)`.
"""
