"""ClickHouse's engine (chdb) behind the HTTP interface that spip-ship uses: query and settings in the query string, data in
the body. Usage: clickhouse_server.py DIRECTORY; prints its port."""

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

from chdb import session

# What the HTTP interface knows beside settings of a query.
INTERFACE = {"query", "wait_end_of_query", "user", "password", "database"}

engine = session.Session(sys.argv[1])


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
        try:
            answer, status, code = str(engine.query(text, "JSONEachRow")).encode(), 200, None
        except Exception as error:
            answer, status = str(error).encode(), 500
            code = str(error).partition("Code: ")[2].partition(".")[0]
        self.send_response(status)
        if code:
            self.send_header("X-ClickHouse-Exception-Code", code)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


server = HTTPServer(("127.0.0.1", 0), Handler)
# Clients that are killed are what the tests are about.
server.handle_error = lambda *arguments: None
print(server.server_address[1], flush=True)
server.serve_forever()
