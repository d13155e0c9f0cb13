"""Proof: drills, the evidence they leave, and what recovery takes by their measure.

drill        restores for real into scratch, from the repository alone, examines and times it
evidence     what drills found, each record chained to the one before and sealed
objectives   data-loss windows and times to recover, against what the settings want
loading      the databases that drills make on servers, and drop again
report       the evidence as pages for people

real          the repository is opened anew with the password that the settings name, trees
              and packs are read from the store, every copy is examined, put in place of a
              stand-in, and the owner's queries are asked of it (tests/proof/test_drill.py)
              a dump is loaded into a database of its own (tests/postgres/test_drill.py)
harmless      nothing outside the scratch directory is written, and no database but one of its
              own; what is there is gone afterwards, after a kill with the next drill (the same)
suspicious    damage that the source had when it was backed up fails a drill, too
              (tests/proof/test_failing.py)
on record     a drill whose evidence cannot be written is an error; a record that was changed,
              left out or moved is found (tests/proof/test_evidence.py)
"""
