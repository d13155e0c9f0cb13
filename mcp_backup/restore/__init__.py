"""Restore: from a snapshot back to live data, in a way that cannot make things worse.

restorer    the verbs: plan, approve, restore, undo, recover. Start here
plan, planner, seen      what would happen, to what, and whether that is still so
approval    plans as files: approved elsewhere, used once
stager, examining        a tree of the snapshot, rebuilt and compared; trusting nothing in it
scratch     restores that end there
journal, swap, recovery  the exchange, written down before it happens; forward or back
signatures  how a live source is recognised as old, new, or neither
undo        what was live before, put back; how many undo points are kept
turn        one restore at a time
"""
