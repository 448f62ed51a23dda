"""The recipe behind the shipped voice. Nothing else imports it; it needs the extra ``train``."""
