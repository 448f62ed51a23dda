"""What Echo costs: time, memory and operations, measured the same way everywhere.

Each program writes one record (``benchmarks.record``); ``benchmarks.compare`` holds two together.
"""
