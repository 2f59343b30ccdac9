"""What ``dalsegno demo`` records and replays: a pipeline on real data and a flow, with the tour that leads through them."""
