"""Debian's nginx with a site of a test's own, by https, with a certificate made for the test."""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.until import until

CONFIG = """
{user}daemon off;
pid {directory}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    ssl_certificate {directory}/certificate.pem;
    ssl_certificate_key {directory}/key.pem;
{servers}
}}
"""
SERVER = "    server {{ listen 127.0.0.1:{port} ssl; {locations} }}\n"


def make_certificate(directory: Path) -> Path:
    """Write a key and a self-signed certificate for ``localhost``; returns the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    path = directory / "certificate.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path


@contextmanager
def running_nginx(directory: Path, sites: dict[int, str]) -> Iterator[Path]:
    """Run nginx with a server for each port, by https; yields the certificate to trust."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    assert nginx, "this test needs nginx; on Debian: apt install nginx-light"
    certificate = make_certificate(directory)
    servers = "".join(
        SERVER.format(port=port, locations=locations) for port, locations in sites.items()
    )
    # Under root, nginx would run its workers as a user without access to the directory.
    user = "user root;\n" if os.geteuid() == 0 else ""
    config = directory / "nginx.conf"
    config.write_text(CONFIG.format(user=user, directory=directory, servers=servers))
    with (directory / "error.log").open("wb") as log:
        argv = [nginx, "-p", str(directory), "-e", "stderr", "-c", str(config)]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:

        def is_listening() -> bool:
            assert process.poll() is None, (directory / "error.log").read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", next(iter(sites)))) == 0

        until(is_listening, "nginx listens")
        yield certificate
    finally:
        process.terminate()
        process.wait(10)
