"""The restic repository format, version 2, in pure functions: bytes in, values out, and back.

What the room is for: every byte that restic and we must agree on is made and read here, and
nowhere else. Nothing in it opens a file, asks the clock or waits; randomness is an argument, but
for the nonces that `Sealer.seal` draws.

Invariants, and the test that keeps each (all under `tests/format/`):

    exact       what is hashed is what Go's encoding/json would have written: test_tree.py, with
                bytes made by Go and by restic itself
    closed      any bytes at all decode to a value or raise IntegrityError or UnsupportedFormat,
                in bounded time and memory: the "any other bytes" property in every test file
    inverse     decode(encode(value)) == value: the "round trip" property in every test file
    sealed      nothing is decrypted before its tag was verified: test_crypto.py
    bounded     nothing is decompressed beyond what was promised: test_blob.py, test_unpacked.py
    usable      a polynomial we draw is irreducible, or restic refuses the repository:
                test_config.py
    local       an edit moves the cuts near it and no others: test_chunking.py

From the outside in: `config` and `key` open a repository; `snapshot`, `index` and `lock` are JSON
inside `unpacked`; `tree` and file contents are blobs, which `blob` compresses, `crypto` seals and
`pack` strings together; `chunking` decides where a file is cut. `document` reads JSON from
strangers, `gotext` and `times` write what Go writes, `zstd` is the one door to the compressor.

Source: restic's design document and source, v0.14.0 to v0.19.
"""
