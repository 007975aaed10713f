#!/usr/bin/env python3
"""Takes Conductor's callbacks and believes only those that are signed. Needs Python 3.9 or newer and nothing else.

    CALLBACK_SECRET=whsec_… PORT=8080 python3 receiver.py
"""

import base64
import hashlib
import hmac
import http.server
import json
import os
import time

TOLERANCE_SECONDS = 5 * 60
BODY_MAX = 1024 * 1024


class Refused(Exception):
    """The request does not come from Conductor, or is too old."""


def verify(secret: str, headers, body: bytes) -> dict:
    """What a callback says, if it is signed with `secret`; raises Refused if it is not."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    number, sent_at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    # The time is signed too, so that nobody can send an old callback again.
    if not sent_at.isdigit() or abs(time.time() - int(sent_at)) > TOLERANCE_SECONDS:
        raise Refused("the timestamp is missing, or more than five minutes from now")
    # The exact bytes of the body: JSON that was read and written again is not the same.
    signed = f"{number}.{sent_at}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    # While a secret is changed there are two signatures, and one has to fit.
    for entry in headers.get("webhook-signature", "").split(" "):
        version, _, signature = entry.partition(",")
        if version == "v1" and hmac.compare_digest(signature.encode(), expected.encode()):
            return json.loads(body)
    raise Refused("no signature fits")


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # The same callback may come twice. A real receiver keeps this with its data, for three days.
    seen = set()

    def do_POST(self):
        length = self.headers.get("content-length", "")
        if not length.isdigit() or int(length) > BODY_MAX:
            self.close_connection = True
            return self.answer(413)
        body = self.rfile.read(int(length))
        try:
            callback = verify(os.environ["CALLBACK_SECRET"], self.headers, body)
        except Refused as refused:
            print(f"refused: {refused}", flush=True)
            return self.answer(401)
        if self.headers["webhook-id"] not in self.seen:
            self.seen.add(self.headers["webhook-id"])
            print(callback["type"], callback["data"].get("id") or callback["data"]["channelId"], flush=True)
        # Answer soon, and do what takes long afterwards: Conductor waits 15 seconds. Anything but 2xx is tried again.
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Receiver)
    print(f"listening on http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
