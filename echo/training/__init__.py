"""The recipe behind the shipped voice. Nothing else in ``echo`` imports it; needs extra ``train``."""
