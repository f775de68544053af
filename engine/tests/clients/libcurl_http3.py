"""One request with libcurl's ngtcp2 build over HTTP/3 only, described as JSON on standard output.

usage: libcurl_http3.py URL [--method M] [--header 'name: value']... [--upload FILE] [--output FILE] [--limit BYTES_PER_S]
           [--upload-limit BYTES_PER_S]
"""

import argparse
import json
import sys

import pycurl


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--method", default="GET")
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--upload")
    parser.add_argument("--output")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--upload-limit", type=int)
    parser.add_argument("--timeout", type=int, default=60)
    arguments = parser.parse_args()

    headers: list[list[str]] = []

    def on_header(line: bytes) -> None:
        name, colon, value = line.decode("latin-1").rstrip("\r\n").partition(":")
        if colon and name:
            headers.append([name.lower(), value.strip()])

    body = bytearray()
    output = open(arguments.output, "wb") if arguments.output else None

    handle = pycurl.Curl()
    handle.setopt(pycurl.URL, arguments.url)
    # 30 is CURL_HTTP_VERSION_3, 31 the same without falling back to TCP.
    handle.setopt(pycurl.HTTP_VERSION, 31)
    handle.setopt(pycurl.SSL_VERIFYPEER, 0)
    handle.setopt(pycurl.SSL_VERIFYHOST, 0)
    handle.setopt(pycurl.HEADERFUNCTION, on_header)
    handle.setopt(pycurl.WRITEFUNCTION, output.write if output else body.extend)
    handle.setopt(pycurl.TIMEOUT, arguments.timeout)
    handle.setopt(pycurl.HTTPHEADER, arguments.header)
    handle.setopt(pycurl.PATH_AS_IS, 1)
    if arguments.limit:
        handle.setopt(pycurl.MAX_RECV_SPEED_LARGE, arguments.limit)
    if arguments.upload_limit:
        handle.setopt(pycurl.MAX_SEND_SPEED_LARGE, arguments.upload_limit)
    if arguments.method == "HEAD":
        handle.setopt(pycurl.NOBODY, 1)
    elif arguments.upload:
        upload = open(arguments.upload, "rb")
        handle.setopt(pycurl.UPLOAD, 1)
        handle.setopt(pycurl.READDATA, upload)
        upload.seek(0, 2)
        handle.setopt(pycurl.INFILESIZE_LARGE, upload.tell())
        upload.seek(0)
        handle.setopt(pycurl.CUSTOMREQUEST, arguments.method)
    else:
        handle.setopt(pycurl.CUSTOMREQUEST, arguments.method)

    error = None
    try:
        handle.perform()
    except pycurl.error as failure:
        error = f"{failure.args[0]}: {failure.args[1]}"
    if output:
        output.close()
    json.dump(
        {
            "status": handle.getinfo(pycurl.RESPONSE_CODE),
            "http_version": handle.getinfo(pycurl.INFO_HTTP_VERSION),
            "bytes": int(handle.getinfo(pycurl.SIZE_DOWNLOAD)),
            "headers": headers,
            "body": body[:65536].decode("latin-1"),
            "error": error,
        },
        sys.stdout,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
