"""From live sources to a snapshot. Start at `archiver`.

    capture → reading → contents (chunks → blobs) → trees → manifest → snapshot

What holds here, and the test that keeps it:

    order     packs, then index, then the snapshot, which is written last and once: a kill at any
              write leaves a valid repository without it, or with the whole of it
              (`tests/crash/test_backup.py`)
    truth     one outcome per source; a failed one is named, never left out or called stored
              (`tests/backup/test_create.py`)
    exact     whatever the slots' order and the chunk size, the blobs add up to the source's bytes
              (`tests/backup/test_contents.py`)
    stable    metadata that did not change makes the same tree blob, so an unchanged file costs
              nothing (`tests/backup/test_trees.py`)
    trust     a source is skipped only when its fingerprint is sound and equal, and every blob of
              its last copy is in the index (`tests/backup/test_create.py`)
    cached    what is remembered of the last backup (`segments`) changes nothing but speed, whatever
              becomes of it (`tests/backup/test_segments.py`)

This room and `restore/` do not know each other: what one writes, the other is handed as a
manifest and a tree.
"""
