"""User code that is given, or makes, what cannot be used."""
