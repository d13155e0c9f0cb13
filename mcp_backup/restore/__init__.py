"""Restore: from a snapshot back to live data, in a way that cannot make things worse.

    restorer    the verbs: plan, approve, restore, undo, recover. Start here
    plan, planner, seen      what would happen, to what, and whether that is still so
    approval, undo_plan      plans as files: approved elsewhere, bound to what they saw, used once
    stager, examining        a tree of the snapshot, rebuilt and compared; trusting nothing in it
    verify      the same for its own sake, into a directory that is removed again
    scratch     restores that end there
    journal, swap, recovery  the exchange, written down before it happens; forward or back
    signatures  how a live source is recognised as old, new, or neither
    undo, keep_paths         what was live before, put back; how many undo points are kept
    turn        one restore at a time

Invariants, at any time and whatever dies (in `tests/`):

1. Each database and each file is old or new, never mixed; after the next start all targets of a
   restore are, unless somebody wrote to one since; the same tests, for sources of every kind.
                                                  crash/test_restore, crash/test_dying
2. Before the first target is touched, an undo point of every target is on the disk, and it stays
   there until the restore was rolled back, or newer ones have taken its place.
                                                  crash/test_restore, restore/test_restore
3. Nothing goes live that was not compared, byte for byte and by its meaning, with what the source
   saw when it was captured. By its meaning once: a database that the backup itself read back and
   examined is proven by its bytes, and has to open.              restore/test_restore
4. A backup never says where something goes: places come from the settings, and no name in a tree
   leads out of the directory it is staged in.    restore/test_plan, restore/test_stager
   Nor does a link that somebody puts there meanwhile.
                                        restore/test_confinement, duckdb/test_confinement
5. Nothing live is touched without approval of this plan, while what it saw still holds; an id is
   matched before it reaches a path.              restore/test_approval, restore/test_restore
6. What somebody wrote after a crash is left as it is.       restore/test_recovery
7. A cancel is seen before the exchange or after it.         restore/test_restore

What the live file has at the same place, is staged from there: proven by the blobs' ids, then
compared and examined like everything. Verification takes nothing from there (`verify`).

The order is: stage and examine, then undo points, then the exchange. The undo point comes as
late as it can, since what is written between it and the exchange is in neither; for a database
that is written to without pause that is the time a worker takes to start, a tenth of a second. One
that nobody writes to is kept while its copy is examined, or staged where that was examined before,
and again if somebody did.
Stop the program first where a tenth of a second matters; the plan names those that have it open.
"""
