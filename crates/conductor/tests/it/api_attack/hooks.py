"""What Schemathesis has to be told of Conductor beside the API's own document."""

import itertools
import re

import requests.adapters
import schemathesis
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import negative_data_rejection

# Why a request is refused that keeps to the schema. Nothing else is a reason: each stands for what no schema of a
# request can say.
REASONS = re.compile(
    "|".join(
        [
            # Which channels there are depends on the tenant.
            r"^(redirect\.|fallback\.\d+\.)?channel: \"[^\"]*\" is not a channel type of this tenant; allowed: ",
            r"^(redirect\.|fallback\.\d+\.)?channelId: is not a channel of this tenant; allowed: ",
            r"^(redirect\.|fallback\.\d+\.)?channelId: names a channel of type \"",
            # One of two fields has to be there; the document says it in words.
            r"^(redirect\.|fallback\.\d+\.)?channel: is required \(or \"(redirect\.)?channelId\"\)",
            # The time goes on while the schema stays.
            r"^expiresAt: is not after (now|sendAt), so the notification could never be sent",
            # `date-time` knows no years.
            r"^(from|to|sendAt|expiresAt): .* expected a time of the years 1970 to 9999",
            # A schema counts characters, Conductor bytes; it has no word for NUL, nor for the size of an object.
            r": is \d+ bytes long; \d+ are allowed",
            r"^q: is too long; \d+ bytes are allowed",
            r"^data: is \d+ bytes of JSON; \d+ are allowed",
            r": holds a NUL character",
            r"targetId: is no target; expected 1 to 1024 bytes of text without NUL",
            r"^metadata: has (\d+ entries; 64 are allowed|an entry without a name)",
            r"^metadata\..*: is too long; a name and a value may have 1024 bytes each",
            # Hours and days are bounded too, whatever they are written in.
            r"^rate\.per: is no time; expected one such as .*, 24 h at most",
            # A name that stands twice in a query.
            r": stands in the query more than once",
        ]
    ),
    re.DOTALL,
)


def from_another_client(send, clients=itertools.count()):
    """Each request comes from a client of its own, through a proxy that the server trusts: how many wrong keys one
    address may try has tests of its own, and would hide what is asked here."""

    def forwarded(self, request, *arguments, **options):
        number = next(clients)
        request.headers["X-Forwarded-For"] = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        return send(self, request, *arguments, **options)

    return forwarded


requests.adapters.HTTPAdapter.send = from_another_client(requests.adapters.HTTPAdapter.send)


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """The document says in words that an empty parameter of a query counts as left out."""
    for operations in raw_schema["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "query":
                    parameter["allowEmptyValue"] = True


@schemathesis.hook
def map_headers(context, headers):
    """Nobody has the time to wait for ten seconds a thousand times."""
    if headers and "wait" in str(headers.get("Prefer", "")):
        headers["Prefer"] = "wait=0"
    return headers


def within_reach(notification):
    """Three of four notifications name the tenant's own channel and a time to come, so that they get as far as the
    store: by chance none would."""
    if not isinstance(notification, dict) or len(str(notification.get("message"))) % 4 == 0:
        return
    notification["channel"] = "log"
    notification.pop("channelId", None)
    if notification.get("expiresAt"):
        notification["expiresAt"] = "9999-01-01T00:00:00Z"
    if notification.get("sendAt"):
        notification["sendAt"] = "2999-01-01T00:00:00Z"
    for route in notification.get("fallback") or []:
        route["channel"] = "log"
        route.pop("channelId", None)


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None or case.meta.generation.mode.is_negative or not isinstance(case.body, dict):
        return
    operation = case.operation.definition.raw.get("operationId")
    if operation == "sendNotification":
        within_reach(case.body)
    elif operation == "sendBatch":
        for notification in case.body.get("notifications", []):
            within_reach(notification)


@schemathesis.check
def refused_for_a_reason(ctx, response, case):
    """Takes the place of `positive_data_acceptance`, which knows no reasons: what keeps to the schema is accepted, or
    refused because of what a schema cannot say."""
    if case.meta is None or case.meta.generation.mode.is_negative or response.status_code < 400:
        return
    if response.status_code in (401, 403, 404, 409):
        return
    body = response.json()
    if response.status_code == 422:
        assert body["type"] == "/docs#problem-idempotency-key-reused", body
        return
    assert response.status_code == 400, f"a request that keeps to the schema is answered with {body}"
    reasons = [f"{detail['field']}: {detail['message']}" for detail in body.get("details", [])]
    assert reasons, f"refused without a reason: {body}"
    for reason in reasons:
        assert REASONS.search(reason), f"a request that keeps to the schema is refused: {reason}"


@schemathesis.check
def what_breaks_the_schema_is_refused(ctx, response, case):
    """Is `negative_data_rejection`, and knows that each notification of a batch is refused on its own."""
    body = case.meta.components.get(ParameterLocation.BODY) if case.meta else None
    if response.status_code == 207 and body is not None and body.mode.is_negative:
        if any(result["status"] == 400 for result in response.json()["results"]):
            return
    negative_data_rejection(ctx, response, case)
