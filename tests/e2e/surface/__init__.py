"""What users can rely on of the Python surface, on an embedded engine, in the process of the tests."""
