"""What ``dalsegno demo`` records and replays, and the tour that leads through it."""
