"""The runbook: pages for people in trouble, read, filled in and carried out from what they print.

pages      a page as sections, prose and blocks of commands with the output to expect
filling    this installation's paths and ids in place of {{placeholders}}
shell      commands one after the other, each in the surroundings that the last one left
walking    step by step with a person: at the table, as a drill, or live

printed    nothing is known but the page: what runs is what is printed
           (tests/runbook/test_pages.py runs every block against a wrecked system)
asked      a block that changes live data runs only after a person said so (the same)
exact      output that is not as printed stops the walk, and is shown beside the page's
"""
