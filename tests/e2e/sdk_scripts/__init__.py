"""Scripts as users write them; the tests run them and read what they say."""
