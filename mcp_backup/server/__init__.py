"""The door for agents: MCP over stdio and streamable HTTP. Thin; the engine does the work.

closed   unknown arguments are refused, and bad ones in one sentence (test_arguments);
small    an answer fits 2,000 tokens, `tools/list` 4,000 (test_tokens);
plain    an expected failure is a result with `is_error`, a code and a next step (test_errors);
asked    no live data is replaced unless the engine has a person's consent (test_consent);
pure     nothing but protocol is on standard output (test_stdio);
ending   end of input, SIGINT and SIGTERM end the server cleanly (test_stdio, test_http).

Reports become `replies` (models, for programs) and `summaries` (text, for people). The terminal
prints the same replies. The engine belongs to the `keeper`, so that a server whose repository
cannot be opened still starts, and says why when it is called.
"""
