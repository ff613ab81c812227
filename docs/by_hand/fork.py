"""A program that does part of its work in a child process: ``python -m fork``."""

import multiprocessing

from server import tracer


def part():
    with tracer.start_as_current_span("part"):
        pass


with tracer.start_as_current_span("fork"):
    child = multiprocessing.get_context("fork").Process(target=part)
    child.start()
    child.join()
