"""One subscription: pure rules against models, and the loop against a sink that fails as told."""
