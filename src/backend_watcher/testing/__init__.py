"""Public aids for tests, ours and yours: builders, fakes, conformance suites."""
