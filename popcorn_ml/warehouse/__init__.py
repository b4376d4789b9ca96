"""The warehouse: one DuckDB file of units, counts, sources, evaluation and lineage, and its views.

`warehouse` has the class `Warehouse`, the only one that writes the file; `schema` has the tables
and views; `rows` types and digests what is written; `lineage` says which rows a manifest makes;
`opening` attaches the file to a connection and brings its schema up to date; `turns` queues for
it. Nothing here knows where the rows come from. Tables and views are described in
docs/warehouse.md.
"""
