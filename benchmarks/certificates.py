"""A certificate for 127.0.0.1, made for one run by the openssl program."""

import shutil
import subprocess


def certificate(folder):
    """Paths of (certificate, key), good for a day; None where openssl is missing, said aloud."""
    if shutil.which("openssl") is None:
        print("SKIPPED: TLS, the program openssl is not here to make a certificate")
        return None
    made, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "1", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(made)], check=True, capture_output=True)
    return made, key
