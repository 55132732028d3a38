"""A model server that answers 202 and calls back: what a `webhook` task of meshpeer talks to.

    python3 server.py [--port 18789] [--workers 2] [--secret-file FILE]

It needs Python and nothing else. Run one beside each worker, then:

    meshpeer jobs submit ../inference.yaml --wait

With a secret (the worker's own `secret_file`) it believes signed requests alone, and signs its call-backs.
"""

import argparse
import base64
import hashlib
import hmac
import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from languages import guess

BODY_BYTES_MAX = 1024 * 1024
QUEUE_MAX = 1_000
CALL_BACK_FOR_S = 600


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port, workers, keys):
        super().__init__(("127.0.0.1", port), Handler)
        self.keys = keys
        self.pool = ThreadPoolExecutor(workers)
        self.taken = {}  # by webhook-id: a request that comes again is not worked on twice
        self.waiting = 0
        self.lock = threading.Lock()

    def take(self, message, callback, text):
        """Queues work once; returns the status to answer with."""
        with self.lock:
            known = message in self.taken
            if not known and self.waiting >= QUEUE_MAX:
                return 429
            self.taken[message] = True
            if len(self.taken) > 100_000:
                del self.taken[next(iter(self.taken))]
            self.waiting += not known
        if not known:
            self.pool.submit(self.work, message, callback, text)
        return 202

    def work(self, message, callback, text):
        if text.strip():
            language, sure = guess(text)
            said = {"status": "succeeded", "result": {"language": language, "sure": sure}}
        else:
            said = {"status": "failed", "error": "there is no text"}
        with self.lock:
            self.waiting -= 1
        self.call_back(message, callback, json.dumps(said).encode())

    def call_back(self, message, callback, body):
        """Calls until it is told that the result is kept, or that nobody waits for it."""
        pause, until = 0.1, time.monotonic() + CALL_BACK_FOR_S
        while time.monotonic() < until:
            headers = {"content-type": "application/json", **sign(self.keys, message, body)}
            try:
                urllib.request.urlopen(urllib.request.Request(callback, body, headers), timeout=30).close()
                return
            except urllib.error.HTTPError as error:
                error.close()
                if error.code in (400, 401, 404, 413, 415):
                    print(f"call-back of {message} refused: {error.code}", flush=True)
                    return
            except OSError:
                pass  # the agent is away; it comes back
            time.sleep(pause)
            pause = min(2 * pause, 10)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        length = int(self.headers.get("content-length") or 0)
        if length > BODY_BYTES_MAX:
            return self.answer(413, {"error": "too large"})
        body = self.rfile.read(length)
        if self.server.keys and not is_signed(self.server.keys, self.headers, body):
            return self.answer(401, {"error": "not signed by a secret of mine"})
        try:
            text = json.loads(body)["text"]
        except (ValueError, KeyError, TypeError):
            return self.answer(422, {"error": 'send {"text": "..."}'})
        callback = self.headers.get("meshpeer-callback")
        if self.path == "/now" or not callback:
            language, sure = guess(str(text))
            return self.answer(200, {"language": language, "sure": sure})
        return self.answer(self.server.take(self.headers.get("webhook-id"), callback, str(text)), {})

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        if status == 429:
            self.send_header("retry-after", "1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


def signature(key, message, seconds, body):
    digest = hmac.digest(key, f"{message}.{seconds}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


def sign(keys, message, body):
    seconds = str(int(time.time()))
    headers = {"webhook-id": message, "webhook-timestamp": seconds}
    if keys:
        headers["webhook-signature"] = signature(keys[0], message, seconds, body)
    return headers


def is_signed(keys, headers, body):
    message, seconds = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not seconds.isdecimal() or abs(time.time() - int(seconds)) > 300:
        return False
    given = headers.get("webhook-signature", "").split(" ")
    wanted = [signature(key, message, seconds, body) for key in keys]
    return sum(hmac.compare_digest(one.encode(), other.encode()) for one in wanted for other in given) > 0


def read_keys(path):
    with open(path, encoding="ascii") as file:
        return [base64.b64decode(line.removeprefix("whsec_")) for line in file.read().split()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=18789)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--secret-file")
    given = parser.parse_args()
    keys = read_keys(given.secret_file) if given.secret_file else []
    with Server(given.port, given.workers, keys) as server:
        print(f"listening on http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
