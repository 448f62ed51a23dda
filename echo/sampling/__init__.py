"""The maths of generation: schedule, guidance, Euler steps, blocks, end of speech."""
