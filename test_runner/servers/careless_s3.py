"""moto as an S3 server that ignores If-None-Match, as some do: every put of a name succeeds.

Started as a program: careless_s3.py PORT.
"""

import sys

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple


def careless(behind):
    def answer(environ, start_response):
        environ.pop("HTTP_IF_NONE_MATCH", None)
        return behind(environ, start_response)

    return answer


if __name__ == "__main__":
    behind = DomainDispatcherApplication(create_backend_app)
    run_simple("127.0.0.1", int(sys.argv[1]), careless(behind), threaded=True)
