"""One signed request to an S3 server, for what the program itself never asks: versioning, and what an attacker does."""
import datetime, hashlib, hmac, urllib.error, urllib.request
from urllib.parse import quote


class Signed:
    def __init__(self, endpoint, key, secret):
        self.endpoint, self.key, self.secret = endpoint, key, secret

    def __call__(self, method, path, query="", body=b""):
        """The text of the answer; an error ends it. `query` is sorted, each name with its `=`."""
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        host, digest = self.endpoint.split("://")[1], hashlib.sha256(body).hexdigest()
        headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": now}
        names = ";".join(headers)
        lines = [method, quote(path), query, *(f"{name}:{text}" for name, text in headers.items()), "", names, digest]
        scope = f"{now[:8]}/us-east-1/s3/aws4_request"
        what = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        key = f"AWS4{self.secret}".encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{what}".encode(), hashlib.sha256).hexdigest()
        who = f"Credential={self.key}/{scope}, SignedHeaders={names}, Signature={signature}"
        headers["authorization"] = f"AWS4-HMAC-SHA256 {who}"
        url = f"{self.endpoint}{quote(path)}{'?' if query else ''}{query}"
        request = urllib.request.Request(url, data=body or None, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read().decode()
