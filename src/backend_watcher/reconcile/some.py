"""Verifies some entries of a table once more, without reading the others."""

from __future__ import annotations

import time
from collections.abc import Sequence

from backend_watcher.errors import CannotVerify
from backend_watcher.postgres.reading import Asked
from backend_watcher.reconcile.plan import Suspect
from backend_watcher.reconcile.report import Begun, TableResult
from backend_watcher.reconcile.verify import MASKS_LOOKED_AT, Verification


class SomeEntries(Verification):
    """Looks at entries as a verification does at those that are not as they should be."""

    async def look(self, name: str, suspects: Sequence[Suspect], begun: Begun | None) -> None:
        """
        Verify some entries of a table, by its full name, and add what is known to `results`. Raises as `run`.

        `begun` is where it was last known which rows they are of: rows that have had them since are found in the
        journal. Without it those that are named have to be all.
        """
        if begun is None:
            oldest = self._follower.oldest()
            begun = Begun(await self._source.mark(), oldest)
        table = await self._source.table(name)
        result = TableResult(self._subscription, name, key=table.read.key, begun=begun)
        result.extras_unknown = "only some entries were looked at"
        self.results.append(result)
        since = time.monotonic()
        # Of any rows of the table: those of the entries may be gone.
        rows = await self._source.read(table, Asked(), (), MASKS_LOOKED_AT)
        self._learn_masks(rows.changes, result)
        await self._extras(table, result, {one.name: one for one in suspects}, begun.lsn, begun.oldest)
        result.entries, result.seconds = len(suspects), time.monotonic() - since
        result.complete = not result.full
        try:
            result.position = await self._follower.delivered(await self._source.mark())
        except CannotVerify as error:
            # What was found equal is equal all the same.
            result.notes.append(error.message)
