"""A way between two processes that can be cut, and that counts what goes over it."""

import socket
import threading
import time


class Way:
    """A TCP port that leads to another one on this machine."""

    def __init__(self, to):
        self.to, self.is_open, self.sent = to, True, 0
        self.sockets = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.to)) if self.is_open else None
            except OSError:
                return
            self.sockets += [near] if far is None else [near, far]
            # Where the way is cut a connection is taken and nothing ever comes back.
            if far:
                threading.Thread(target=self.carry, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self.carry, args=(far, near, False), daemon=True).start()

    def carry(self, source, sink, counted):
        try:
            while data := source.recv(65536):
                while not self.is_open:
                    time.sleep(0.05)
                self.sent += len(data) if counted else 0
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            end.close()

    def close(self):
        self.listener.close()
        for end in self.sockets:
            end.close()
