"""Torch building blocks: plain arguments, weights only; streaming state is passed in."""
