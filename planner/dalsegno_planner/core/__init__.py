"""Rules and domain types: no clock, network, database or randomness in here."""
