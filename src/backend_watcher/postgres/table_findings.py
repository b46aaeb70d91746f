"""What stands in the way at the tables and their publication. Pure: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from backend_watcher.postgres.catalog import Found, Server, TableFacts, missing_text
from backend_watcher.postgres.findings import Finding, Wish, fault, ok, warning, wished_operations
from backend_watcher.postgres.identity import fault_of, mend_of, mend_old_values, needs_identity
from backend_watcher.postgres.names import quote
from backend_watcher.postgres.publications import PublicationFacts, create_statement, publish_of

_KINDS = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
    "i": "an index",
    "I": "an index",
    "c": "a type",
    "t": "a TOAST table",
}


def judge_tables(
    found: Found, wishes: Mapping[str, Wish], publication: PublicationFacts | None, server: Server
) -> Iterator[Finding]:
    """Judge each wished table by itself."""
    for name, close in found.missing.items():
        remedy = f"write {close[0]} instead" if close else "create it, or take its name out of the configuration"
        yield fault("table_missing", name, missing_text(name, close), remedy)
    operations = wished_operations(wishes.values()) | (publication.operations if publication else frozenset())
    roots = {table.quoted for table in found.tables.values()}
    for name, table in found.tables.items():
        bad = list(_table(name, table, wishes[name], operations, server))
        if table.partition_root in roots:
            message = f"table {table.quoted} is a partition of {table.partition_root}: its changes come under that name"
            bad.append(warning("partition_of_watched", name, message, "take it out of the configuration"))
        yield from bad or [ok("table", name, f"table {table.quoted} can be watched")]


def judge_publication(
    name: str,
    publication: PublicationFacts | None,
    found: Found,
    wishes: Mapping[str, Wish],
    server: Server,
    slot_exists: bool,
) -> Iterator[Finding]:
    """Judge the publication the watcher would use, or whether it may create one."""
    wished = [table for table in found.tables.values() if table.is_publishable]
    operations = wished_operations(wishes.values())
    if publication is None:
        bad = _to_create(name, wished, operations, server, slot_exists)
        fine = f"publication {name!r} does not exist yet; the watcher creates it"
    else:
        bad = _as_it_is(publication, wished, operations)
        fine = f"publication {name!r} is there"
    yield from list(bad) or [ok("publication", name, fine)]


def _table(name: str, table: TableFacts, wish: Wish, operations: frozenset[str], server: Server) -> Iterator[Finding]:
    refusal = _unpublishable(table)
    if refusal is not None:
        message, remedy = refusal
        yield fault("not_publishable", name, message, remedy)
        return
    if needs_identity(operations) and not table.is_identified:
        yield fault("replica_identity", name, fault_of(table), mend_of(table))
    elif not table.primary_key:
        index = f"USING INDEX {quote(table.candidate_index)}" if table.candidate_index else "(…)"
        message = f"table {table.quoted} has no primary key: its rows cannot be told apart"
        yield warning("no_primary_key", name, message, f"ALTER TABLE {table.quoted} ADD PRIMARY KEY {index};")
    elif table.deferrable_key is not None:
        columns = ", ".join(map(quote, table.primary_key))
        message = (
            f"the primary key of {table.quoted} is deferrable: two rows may have one key inside a transaction, and "
            "where rows swap their keys, what is kept by the key (a cache, a replica, your function) may lose one"
        )
        again = f"DROP CONSTRAINT {quote(table.deferrable_key)}, ADD PRIMARY KEY ({columns})"
        yield warning("deferrable_key", name, message, f"ALTER TABLE {table.quoted} {again};")
    if wish.old_values and table.without_old_values and table.is_identified:
        message = f"changes of {table.quoted} do not carry the old values that a subscription compares"
        yield warning("old_values", name, message, mend_old_values(table))
    role = quote(server.role)
    if not table.can_select:
        message = f"role {role} may not read {table.quoted}: it cannot be loaded or verified"
        grant = f"GRANT USAGE ON SCHEMA {quote(table.schema)} TO {role}; GRANT SELECT ON {table.quoted} TO {role};"
        yield warning("select_privilege", name, message, grant)
    elif table.row_security:
        message = f"row security hides rows of {table.quoted} from role {role}: it cannot be loaded or verified"
        yield warning("row_security", name, message, f"ALTER ROLE {role} BYPASSRLS;")


def _unpublishable(table: TableFacts) -> tuple[str, str] | None:
    away = "take it out of the configuration"
    if table.kind not in {"r", "p"}:
        what = _KINDS.get(table.kind, f"of kind {table.kind!r}")
        return f"{table.quoted} is {what}: PostgreSQL sends changes of tables only", away
    if table.is_system:
        return f"{table.quoted} belongs to PostgreSQL itself: its changes are not sent", away
    if table.persistence == "u":
        return f"table {table.quoted} is unlogged: its changes are not sent", f"ALTER TABLE {table.quoted} SET LOGGED;"
    if table.persistence == "t":
        return f"table {table.quoted} is temporary: its changes are not sent", away
    return None


def _to_create(
    name: str, wished: list[TableFacts], operations: frozenset[str], server: Server, slot_exists: bool
) -> Iterator[Finding]:
    statement = create_statement(name, wished, operations)
    foreign = [table for table in wished if not table.owned]
    if slot_exists:
        message = f"the slot is there, and publication {name!r} is not: changes since the slot began would be skipped"
        yield fault("publication_missing", name, message, f"{statement} -- then load the tables again")
    elif foreign:
        whose = ", ".join(f"{table.quoted} (owner {quote(table.owner)})" for table in foreign)
        message = f"role {quote(server.role)} cannot publish tables it does not own: {whose}"
        yield fault("table_owner", name, message, f"{statement} -- as their owner")
    elif not server.can_create:
        message = f"role {quote(server.role)} may not create a publication in database {server.database!r}"
        grant = f"GRANT CREATE ON DATABASE {quote(server.database)} TO {quote(server.role)};"
        yield fault("create_privilege", name, message, grant)


def _as_it_is(publication: PublicationFacts, wished: list[TableFacts], operations: frozenset[str]) -> Iterator[Finding]:
    name, quoted = publication.name, quote(publication.name)
    lacking_operations = operations - publication.operations
    if lacking_operations:
        message = f"publication {name!r} does not send {publish_of(lacking_operations)}"
        publish = publish_of(operations | publication.operations)
        yield fault("publication_operations", name, message, f"ALTER PUBLICATION {quoted} SET (publish = '{publish}');")
    roots = ", ".join(table.quoted for table in wished if table.kind == "p")
    if roots and not publication.via_root:
        message = f"publication {name!r} sends changes of {roots} under the names of the partitions"
        remedy = f"ALTER PUBLICATION {quoted} SET (publish_via_partition_root = true);"
        yield fault("publication_via_root", name, message, remedy)
    lacking = publication.lacking(wished)
    if any(not (publication.owned and table.owned) for table in lacking):
        tables = ", ".join(table.quoted for table in lacking)
        message = f"publication {name!r} lacks {tables}, which only the owner of both can add"
        yield fault("publication_tables", name, message, f"ALTER PUBLICATION {quoted} ADD TABLE {tables};")
    yield from _narrowed(publication, wished)


def _narrowed(publication: PublicationFacts, wished: list[TableFacts]) -> Iterator[Finding]:
    name = publication.name
    if publication.all_tables:
        message = f"publication {name!r} sends all tables: one made without a primary key cannot be updated any more"
        yield warning("publication_all_tables", name, message, "name a publication of its own in source.publication")
    oids = {table.oid for table in wished}
    for table in publication.tables:
        if table.oid in oids and (table.has_column_list or table.row_filter):
            what = "some columns" if table.has_column_list else "some rows"
            message = f"publication {name!r} sends only {what} of {table.quoted}"
            alter = f"ALTER PUBLICATION {quote(name)}"
            remedy = f"{alter} DROP TABLE {table.quoted}; {alter} ADD TABLE {table.quoted}; -- or leave it, on purpose"
            yield warning("publication_filter", name, message, remedy)
