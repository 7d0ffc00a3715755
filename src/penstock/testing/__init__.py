"""Stand-ins, over real HTTP, for the paid services that Penstock talks to: for tests, load tests and chaos runs."""
