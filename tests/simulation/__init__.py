"""One subscription on a virtual clock: a seed decides what happens, what fails, and when."""
