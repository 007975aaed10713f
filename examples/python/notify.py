"""Sends a notification: python3 notify.py "The backup is done." [channel]

Needs CONDUCTOR_URL and CONDUCTOR_KEY in the environment, and nothing but the standard library. In a program:

    from notify import notify
    notify("The backup is done.", channel="discord", priority="high")
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid

TRIES = 5


def notify(message, channel="log", **fields):
    """Returns the notification's id once Conductor has it on disk. `fields` are any of the API's others."""
    request = urllib.request.Request(
        os.environ["CONDUCTOR_URL"] + "/notifications",
        data=json.dumps({"channel": channel, "message": message, **fields}).encode(),
        headers={
            "Authorization": "Bearer " + os.environ["CONDUCTOR_KEY"],
            "Content-Type": "application/json",
            # The same key in every try: a repeated request makes no second notification.
            "Idempotency-Key": str(uuid.uuid4()),
        },
    )
    for attempt in range(1, TRIES + 1):
        wait = 2**attempt
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)["id"]
        except urllib.error.HTTPError as error:
            if error.code not in (409, 429, 503) or attempt == TRIES:
                raise RuntimeError(f"Conductor answered {error.code}: {error.read().decode()}") from error
            wait = int(error.headers.get("Retry-After", wait))
        except OSError:
            if attempt == TRIES:
                raise
        time.sleep(wait)


if __name__ == "__main__":
    print(notify(*sys.argv[1:3]))
