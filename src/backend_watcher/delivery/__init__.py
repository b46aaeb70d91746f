"""One loop per subscription: read the journal, route, transform, spread over lanes, batch, deliver, settle."""
