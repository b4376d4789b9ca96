"""`popcorn gc`: what may be removed from the store, why, and how.

`inventory` lists the versions that are there, `plan` says which of them nothing needs,
`leftovers` finds what killed writers left, `removal` takes it all away safely. Nothing here asks or
prints; Dagster's own records are `retention`'s business. `standing` and `judged` say what there is
of a country-year and how good it is, for `popcorn show`.
"""
