"""Reference voices: finding them, reading them, caching what is made of them."""
