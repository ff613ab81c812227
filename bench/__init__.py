"""Measure the cost of tracing, in turns on one machine: ``make bench``.

It asserts nothing: a test that fails because the machine is busy proves nothing.
"""
