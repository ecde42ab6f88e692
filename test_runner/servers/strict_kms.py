"""moto, behind a gate that holds what AWS holds and moto does not: the states of keys.

A key that is not enabled makes no data key and opens nothing; a ciphertext opens only under the key
that the request names. Started as a program: strict_kms.py PORT.
"""

import base64
import io
import json
import sys

from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from moto.kms.utils import _deserialize_ciphertext_blob
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
from werkzeug.wrappers import Request, Response

REGION = "eu-central-1"
USES = {"Encrypt", "Decrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext"}


def refusal(code, message):
    body = json.dumps({"__type": code, "message": message})
    return Response(body, 400, content_type="application/x-amz-json-1.1")


def key_of(key_id):
    return get_backend("kms")[DEFAULT_ACCOUNT_ID][REGION].keys.get(key_id.rsplit("/", 1)[-1])


def refused(operation, body):
    """The answer to a request that AWS would refuse, else None."""
    key = key_of(body.get("KeyId", ""))
    if key is None:
        return None  # moto itself knows what to say
    if operation == "EnableKey" and key.key_state == "PendingDeletion":
        return refusal("KMSInvalidStateException", f"{key.arn} is pending deletion.")
    if operation not in USES:
        return None
    if key.key_state == "Disabled":
        return refusal("DisabledException", f"{key.arn} is disabled.")
    if key.key_state != "Enabled":
        return refusal("KMSInvalidStateException", f"{key.arn} is pending deletion.")
    if operation == "Decrypt":
        made_by = _deserialize_ciphertext_blob(base64.b64decode(body["CiphertextBlob"])).key_id
        if made_by != key.id:
            return refusal("IncorrectKeyException", "The key ID does not identify the CMK.")
    return None


class Gate:
    def __init__(self, behind):
        self.behind = behind

    def __call__(self, environ, start_response):
        request = Request(environ)
        target = request.headers.get("X-Amz-Target", "")
        if target.startswith("TrentService."):
            # Read once; the application behind reads it anew.
            raw = request.get_data()
            environ["wsgi.input"] = io.BytesIO(raw)
            answer = refused(target.removeprefix("TrentService."), json.loads(raw or b"{}"))
            if answer is not None:
                return answer(environ, start_response)
        return self.behind(environ, start_response)


if __name__ == "__main__":
    run_simple(
        "127.0.0.1",
        int(sys.argv[1]),
        Gate(DomainDispatcherApplication(create_backend_app)),
        threaded=True,
    )
