"""ClickHouse's engine (chdb) behind the HTTP interface that spip-ship uses: query and settings in the query string, data in
the body. Each connection has a thread; one thread asks the engine, which is made for one. Usage: clickhouse_server.py
DIRECTORY; prints its port."""

import queue
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from chdb import session

# What the HTTP interface knows beside settings of a query.
INTERFACE = {"query", "wait_end_of_query", "user", "password", "database"}

queries = queue.Queue()


def ask(text):
    """Returns status, answer and error code."""
    answer = queue.Queue()
    queries.put((text, answer))
    return answer.get()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        values = {key: value[0] for key, value in parse_qs(urlsplit(self.path).query).items()}
        query = values.get("query", "")
        settings = ", ".join(f"{key}='{value}'" for key, value in values.items() if key not in INTERFACE)
        if query.startswith("INSERT"):
            head, form = query.rsplit(" FORMAT ", 1)
            text = f"{head} SETTINGS {settings} FORMAT {form}\n{body.decode()}"
        else:
            text = body.decode()
        status, answer, code = ask(text)
        self.send_response(status)
        if code:
            self.send_header("X-ClickHouse-Exception-Code", code)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


engine = session.Session(sys.argv[1])
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
# Clients that are killed are what the tests are about.
server.handle_error = lambda *arguments: None
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_address[1], flush=True)
while True:
    text, answer = queries.get()
    try:
        answer.put((200, str(engine.query(text, "JSONEachRow")).encode(), None))
    except Exception as error:
        answer.put((500, str(error).encode(), str(error).partition("Code: ")[2].partition(".")[0]))
