"""Selectors, plans and overrides as users meet them: SEMANTICS §2 to §4 on an engine, through the Python client."""
