"""Telling somebody who is not looking: what is wrong, once; that it is over, once.

    alert.py    what happened, as facts; what is told, as one `Alert`
    outbox.py   what is wrong and what is still to be told, in a file that outlives the process
    sending.py  one alert, handed to one receiver, within a bounded time
    alerts.py   `Alerts`: the hooks that runs and status call, and the task that delivers

Invariants:

* a condition is told when it begins and when it ends, not in between, however many processes see
  it: it begins and what tells of it is queued in one transaction (tests/alerts/test_alerts.py);
* nothing queued is lost to a receiver that is down, a crash or a restart: at least once, each
  with an `id` that stays the same (tests/alerts/test_delivery.py);
* addresses, tokens and commands are in no log, no message, no file (tests/alerts/test_secrets.py);
* no hook fails or waits for a receiver: a backup is worth more than the news of it.
"""
