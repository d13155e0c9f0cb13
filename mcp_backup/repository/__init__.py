"""The repository: restic's, with everything that its format leaves to its users to get right.

What the room is for: snapshots, blobs, the index, keys and locks over a `Store`, so that the
directions (`backup/`, `restore/`) deal in ids and bytes and never in object names.

Invariants, at any time and whatever was killed, and the test that keeps each:

    reachable   a snapshot's trees exist, a tree's blobs exist, an indexed pack exists: writing
                goes packs, index, snapshot; reading goes snapshots, index:
                tests/repository/test_repository.py
    named       what is loaded hashes to its name, or IntegrityError names the object:
                tests/repository/test_check.py
    alone       what deletes holds an exclusive lock, and a lock that was lost ends the work:
                tests/repository/test_locks.py
    kept        what a snapshot needs survives a prune, interrupted at any point:
                tests/repository/test_prune.py, tests/crash/test_prune.py
    shared      restic honours our locks and we honour restic's; each reads what the other wrote:
                tests/interop/

Deleting is writing backwards, under an exclusive lock: write new packs, write new index files,
delete old index files, delete old packs; and snapshots go before what only they refer to.

`repository` opens one; `keys` finds the master key; `objects` has the names; `blob_index` knows
where blobs lie; `locks` keeps others out; `writer`, `pool` and `sealing` add blobs in bulk, and
`reader` brings them back; `check` reads everything and lists what is wrong, with
`pack_examining` for whole packs. `reachable` finds what
snapshots refer to, `prune` plans what becomes of the rest, `repack` carries that out.

Source: restic design, "Repository Format" and "Locks".
"""
