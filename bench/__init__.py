"""What tracing costs, measured on one machine, in alternation: ``make bench``.

Measures and never asserts: a test that fails because a machine was busy says nothing.
"""
