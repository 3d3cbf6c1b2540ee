"""git's own HTTP server behind TLS and a password, on a port that is printed. What else is asked is printed, too."""

import base64
import glob
import http.server
import os
import ssl
import subprocess
import sys

certificate, repositories = sys.argv[1:]
password = os.environ["PASSWORD"]
wanted = "Basic " + base64.b64encode(("x-access-token:" + password).encode()).decode()


def shown():
    """Whether the password stands in any process's arguments, but for this one's."""
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            if int(path.split("/")[2]) != os.getpid() and password.encode() in open(path, "rb").read():
                return True
        except OSError:
            pass
    return False


class Git(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.serve()

    def do_POST(self):
        self.serve()

    def serve(self):
        got = self.headers.get("Authorization")
        host = self.headers["Host"].split(":")[0]
        print(host, self.path.split("?")[0], "with" if got == wanted else "wrong" if got else "without",
              "SHOWN" if shown() else "", flush=True)
        if self.path.startswith("/away/"):
            self.send_response(302)
            self.send_header("Location", f"https://127.0.0.1:{self.server.server_port}" + self.path.removeprefix("/away"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if got != wanted and not self.path.startswith("/open/"):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        environment = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": repositories, "GIT_HTTP_EXPORT_ALL": "1",
            "REMOTE_USER": "x", "REQUEST_METHOD": self.command, "PATH_INFO": path, "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        said = subprocess.run(["git", "-c", "safe.directory=*", "http-backend"], input=body, env=environment, stdout=subprocess.PIPE).stdout
        head, _, content = said.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Git)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
