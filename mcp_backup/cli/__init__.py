"""The terminal's door: one function per verb, in modules imported when asked for.

    arguments.py   what people type, put into the form typer expects
    app.py         the verbs, and what becomes of an error: one place, one exit code each
    session.py     what one invocation runs with, and how it stops on Ctrl-C
    backups.py     create, list, verify, check     upkeep.py    export, doctor
    restores.py    restore, approve, undo          begin.py     init
    serve.py       serve                           call.py      call

Starting quickly is a promise: only `serve` and `call` import the MCP library.
Exit codes: 0 done, 1 failed, 2 usage, 3 findings, 4 unreachable, 5 approval required,
130 interrupted.
"""
