"""What happens to servers, done to this one: `make chaos`. Not a test suite: it takes minutes, and kills processes."""
