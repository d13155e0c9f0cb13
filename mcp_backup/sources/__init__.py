"""What is backed up: live things of several kinds, captured, examined and put back.

`source` has the words, `kinds` what every kind must do; `sqlite` and `files` are kinds. All of a
kind's code blocks and runs in a worker process of its own (`worker`), one operation each; `capture`
is what the rest of the program sees of it, and the only async module here.

    invariant                                                    kept by the tests in
    a capture is one consistent point in time                    test_sqlite_capture
    evidence is of the bytes that were captured                  test_sqlite_capture, test_sink
    capturing and examining change no content                    test_sqlite_capture, …_examine
    a fingerprint is equal only if nothing changed               test_sqlite_fingerprint
    excluded tables leave no bytes behind                        test_sqlite_exclude
    a database is exchanged in one transaction; a kill leaves
      the old or the new, and those who have it open go on       test_sqlite_placement
    nothing outside a file set's root is read or written         test_files, test_placement
    a copy of a DuckDB file is proven, or is an error            duckdb/test_capture, …_hammer
    a DuckDB file is exchanged by one rename, while nobody
      has it open                                                duckdb/test_placement
    a worker that fails, dies or is cancelled says so, and ends  test_capture

Design notes. The first page of a database comes last, as SQLite's backup writes it, so the digest
of a file is made of segments (`digest`) and the sink keeps the first slot to the end. Where a live
file could be read only by changing something beside it, a private copy is read instead
(`sqlite_reading`). Nobody's word is taken for who has a file open: holders are named for people,
while locks decide.
"""
