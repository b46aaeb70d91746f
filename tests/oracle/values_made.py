"""
Types that a database makes for itself: enums, composites, domains, ranges, and those of extensions.

With them two that not every server prints in binary, or knows at all: aclitem and xml.
"""

from __future__ import annotations

import psycopg

# Quotes, dots and capital letters, so that a name is never read for a word.
MAKE = """
CREATE SCHEMA "Odd.one";
CREATE TYPE "Odd.one".mood AS ENUM ('sad', 'o''k', 'grün', '', 'a "b", {c}');
CREATE TYPE "Odd.one".pair AS (a int, b text, m "Odd.one".mood);
CREATE TYPE "Odd.one".nested AS (p "Odd.one".pair, many "Odd.one".pair[], at timestamptz);
CREATE DOMAIN "Odd.one".small AS int CHECK (VALUE < 10);
CREATE DOMAIN "Odd.one".smaller AS "Odd.one".small CHECK (VALUE < 5);
CREATE DOMAIN "Odd.one".row_of AS "Odd.one".pair CHECK ((VALUE).a > 0);
CREATE DOMAIN "Odd.one".list AS int[];
CREATE TYPE "Odd.one".span AS RANGE (subtype = interval);
CREATE TABLE "Odd.one"."Größe" (id int);
"""

MADE: dict[str, list[str]] = {
    '"Odd.one".mood': ["sad", "o'k", "grün", "", 'a "b", {c}'],
    '"Odd.one".mood[]': ['{sad,NULL,"grün",""}', '{{"a \\"b\\", {c}"},{sad}}', "{}"],
    '"Odd.one".pair': ['(1,"a ""b"", (c)",sad)', "(,,)", '(0,"",grün)', '(-1,"\\\\",)', '(1," x ",)', "(1,NULL,)"],
    '"Odd.one".pair[]': ['{"(1,\\"a \\"\\"b\\"\\"\\",sad)",NULL}', "{}"],
    '"Odd.one".nested': ['("(1,x,sad)","{""(2,y,)""}","2024-01-01 00:00:00.5+00")', "(,,infinity)"],
    '"Odd.one".small': ["7", "-1"],
    '"Odd.one".smaller': ["4"],
    '"Odd.one".smaller[]': ["{1,NULL,4}"],
    '"Odd.one".row_of': ["(1,b,sad)"],
    '"Odd.one".list': ["{1,NULL}", "[0:1]={1,2}"],
    '"Odd.one".span': ['["1 day","1 mon")', "empty", '[-00:00:01,"1 day 00:00:00.5")'],
    "aclitem": ["postgres=arwd/postgres"],
    "aclitem[]": ["{postgres=arwd/postgres,NULL}"],
    "regclass": ['"Odd.one"."Größe"'],
    "regtype": ['"Odd.one".mood', '"Odd.one".pair[]'],
}

XML: dict[str, list[str]] = {
    "xml": ["<a/>", "text", '<a b="c">ünïcödé &amp; <!-- x --></a>', "<a/><b/>"],
    "xml[]": ['{<a/>,NULL,"<b c=\\"d\\">e, f</b>"}', "[0:0]={<a/>}"],
}

# What an extension gives, where the server has it.
EXTENSIONS: dict[str, dict[str, list[str]]] = {
    "hstore": {"hstore": ['"a"=>"1", "b"=>NULL', "", '"q\\"u"=>"o, t=>e"'], "hstore[]": ['{"\\"a\\"=>\\"1\\"",NULL}']},
    "citext": {"citext": ["Ünï", "", "A b"], "citext[]": ['{A,"b c"}']},
    "ltree": {
        "ltree": ["Top.Science.Astronomy", ""],
        "lquery": ["*.Astronomy.*{1,2}"],
        "ltxtquery": ["Europe & !Asia"],
    },
    "cube": {"cube": ["(1, 2),(3, 4)", "(0.1)"]},
    "seg": {"seg": ["1.5 .. 2.50", "~6.5"]},
    "isn": {"isbn": ["0-393-04002-X"], "ean13": ["978-0-393-04002-9"]},
    "vector": {"vector": ["[1,2.5,-3e-07]"], "halfvec": ["[1,0.5]"], "sparsevec": ["{1:1.5,3:2}/5"]},
}


def make(connection: psycopg.Connection) -> dict[str, list[str]]:
    """Make the types in this database, those of `public` for extensions; return what to ask of each."""
    connection.execute("SET search_path = public, pg_catalog")
    for statement in filter(str.strip, MAKE.split(";")):
        connection.execute(statement.encode())
    cases = dict(MADE)
    there = {row[0] for row in connection.execute("SELECT name FROM pg_available_extensions")}
    for extension in sorted(there & set(EXTENSIONS)):
        connection.execute(f"CREATE EXTENSION {extension} SCHEMA public".encode())
        cases |= {f"public.{kind}": texts for kind, texts in EXTENSIONS[extension].items()}
    try:
        connection.execute("SELECT '<a/>'::xml")
    except psycopg.errors.FeatureNotSupported:
        return cases
    return cases | XML
