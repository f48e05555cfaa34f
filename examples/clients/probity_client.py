#!/usr/bin/env python3
"""A merchant's client of the payment gateway, in Python's standard library.

    export PROBITY_GATEWAY=http://127.0.0.1:40003 PROBITY_API_KEY=... PROBITY_API_SECRET=...
    python3 probity_client.py pay ORDER-1 4990 EUR card_ok
    python3 probity_client.py show PAY-...
    python3 probity_client.py refund PAY-... 1000 EUR
    python3 probity_client.py cancel PAY-...
    python3 probity_client.py list

`cargo demo -- --serve` prints the three variables. A program imports `Client`.
"""

import hashlib
import hmac
import http.client
import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.parse
import urllib.request


class Refused(Exception):
    """The gateway refused: a problem document says why, and what to do."""

    def __init__(self, status, problem):
        super().__init__(f"{status}: {problem.get('detail') or problem.get('title') or problem}")
        self.status = status
        self.problem = problem


class NoAnswer(Exception):
    """No answer came, so nobody knows whether it happened. Send the same key again later: it happens once."""


# Answers after which the same key may be sent again: it is still running, or the service is not there.
AGAIN = {409, 425, 429, 502, 503, 504}


class Client:
    """Signs requests with one API key, and repeats them with the same idempotency key until there is an answer."""

    def __init__(self, gateway, api_key, api_secret, tries=8, timeout=30.0):
        self.gateway = gateway.rstrip("/")
        self.api_key = api_key
        self.secret = api_secret.encode()
        self.tries = tries
        self.timeout = timeout
        # A proxy of the environment has no business between a merchant and a gateway on this machine.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def pay(self, order_no, amount, currency, method, key=None):
        """Pays an order; `amount` is a whole number of the smallest unit. The order's number is a good key."""
        body = {"order_no": order_no, "amount": amount, "currency": currency, "payment_method": method}
        return self.post("/api/v1/payments", body, key or f"pay-{order_no}")

    def refund(self, payment_no, amount, currency, key=None):
        """Gives a part or all of a payment back. Two refunds of the same sum need two keys."""
        body = {"payment_no": payment_no, "amount": amount, "currency": currency}
        return self.post("/api/v1/refunds", body, key or secrets.token_hex(16))

    def cancel(self, payment_no):
        """Stops a payment that is not charged yet."""
        return self.post(f"/api/v1/payments/{quoted(payment_no)}/cancel", None, None)

    def show(self, payment_no):
        """Looks at one payment."""
        return self.get(f"/api/v1/payments/{quoted(payment_no)}")

    def list(self):
        """Looks at all payments, page by page."""
        cursor = None
        while True:
            query = "?" + urllib.parse.urlencode({"before": cursor}) if cursor else ""
            page = self.get(f"/api/v1/payments{query}")
            yield from page["payments"]
            cursor = page.get("next")
            if not cursor:
                return

    def get(self, path):
        return self.send("GET", path, b"", {})

    def post(self, path, body, key):
        headers = {"Idempotency-Key": key} if key else {}
        if body is None:
            return self.send("POST", path, b"", headers)
        # The bytes are made once: a retry with other bytes would be another request.
        data = json.dumps(body, separators=(",", ":"), sort_keys=True).encode()
        return self.send("POST", path, data, headers | {"Content-Type": "application/json"})

    def send(self, method, path, body, headers):
        """Sends until there is an answer. Only a request with an idempotency key, or one that reads, is repeated."""
        repeatable = method == "GET" or "Idempotency-Key" in headers
        last = "no answer"
        for attempt in range(self.tries if repeatable else 1):
            if attempt:
                time.sleep(min(0.2 * 2**attempt, 10) * (0.8 + 0.4 * secrets.randbelow(1000) / 1000))
            # Each attempt has a time and a nonce of its own; the idempotency key stays.
            request = urllib.request.Request(
                self.gateway + path, data=body if method == "POST" else None, method=method
            )
            for name, value in {**headers, **self.signature(method, path, body)}.items():
                request.add_header(name, value)
            try:
                with self.opener.open(request, timeout=self.timeout) as answer:
                    return json.loads(answer.read())
            except urllib.error.HTTPError as refusal:
                problem = problem_of(refusal)
                if refusal.code not in AGAIN or not repeatable:
                    raise Refused(refusal.code, problem) from refusal
                last = f"{refusal.code}: {problem.get('detail', '')}"
            except (OSError, http.client.HTTPException) as error:
                last = str(error)
        raise NoAnswer(f"{method} {path}: {last}")

    def signature(self, method, path, body):
        """The four headers: HMAC-SHA256 over method, path and query, time, nonce and the SHA-256 of the body."""
        timestamp, nonce = str(int(time.time())), secrets.token_hex(16)
        text = "\n".join([method, path, timestamp, nonce, hashlib.sha256(body).hexdigest()])
        signature = hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest()
        return {
            "X-API-Key": self.api_key,
            "X-Timestamp": timestamp,
            "X-Nonce": nonce,
            "X-Signature": signature,
        }


def problem_of(refusal):
    try:
        return json.loads(refusal.read())
    except ValueError:
        return {}


def quoted(text):
    return urllib.parse.quote(text, safe="")


def main(arguments):
    names = ["PROBITY_GATEWAY", "PROBITY_API_KEY", "PROBITY_API_SECRET"]
    missing = [name for name in names if not os.environ.get(name)]
    verbs = {"pay": 4, "refund": 3, "cancel": 1, "show": 1, "list": 0}
    verb, rest = (arguments + [""])[0], arguments[1:]
    if missing or verbs.get(verb) != len(rest):
        print(__doc__, file=sys.stderr)
        if missing:
            print(f"set {', '.join(missing)}", file=sys.stderr)
        return 2
    client = Client(*(os.environ[name] for name in names))
    try:
        if verb == "pay":
            answer = client.pay(rest[0], int(rest[1]), rest[2], rest[3])
        elif verb == "refund":
            answer = client.refund(rest[0], int(rest[1]), rest[2])
        elif verb == "list":
            answer = list(client.list())
        else:
            answer = getattr(client, verb)(rest[0])
    except Refused as refusal:
        print(json.dumps(refusal.problem, indent=2), file=sys.stderr)
        return 1
    except NoAnswer as nobody:
        print(f"{nobody}\nIt may have happened: run the same command again.", file=sys.stderr)
        return 3
    print(json.dumps(answer, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
