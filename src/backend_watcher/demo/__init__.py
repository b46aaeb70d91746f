"""
`watcher demo`: the reason for this product, visible in a minute.

A shop takes the same orders twice, at the same rate, on a real PostgreSQL and a real Valkey:

    inline     Backend 1 does everything inside the request: SQL, the cache, the call to the seller's service
    watched    Backend 1 does the SQL and answers; Backend Watcher hears the commits and does the rest

and then it is proved that nothing was lost and nothing is wrong, although the watcher was killed half-way.

Read `shop.py` first: it is all that a user of Backend Watcher would have written. Then `orders.py` and `inline.py`
(the two halves of Backend 1's work), `proof.py` (what "proved" means), and `run.py`, which puts it together.
"""
