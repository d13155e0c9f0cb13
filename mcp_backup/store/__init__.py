"""Named, immutable objects, wherever they are kept.

`store` holds the promises, word by word; `tests/store/contract.py` holds a test for each, and
every store passes the same suite. `local` keeps the promises on a disk, `memory` in a dictionary,
`retry` tries again what is worth it, `layout` knows which names there can be, `filesystems` tells
a disk of our own from a share, and `location` turns what the settings say into a store.

Whatever a library or the system raises is translated here, once, so that nobody above knows which
store it is talking to. A store knows nothing of keys, packs or snapshots.
"""
