"""The quality benchmark: truth-known scenes, every subtraction method on the same pixels, one table.

``python -m benchmarks.quality --help`` from the root of the repository says how to run it.
"""
