"""What all invites share: the dictionary that their compression starts from (RFC 1951 with a preset
window).

Part of the format ``meshpeer1.``: it never changes, whatever becomes of the code that makes certificates.
It is the body of an invite with roots, issuer, default capabilities and seeds, without its keys,
signatures, serials and ids.
"""

from __future__ import annotations

import base64

DICTIONARY = base64.b64decode(
    "pmFpWQGjMIIBnzCCAVGgAwIBAgIIMAUGAytlcDAaMRgwFgYDVQQDDA9yb290IDAeFw0yNjExMjkyMzAwMDBaFw0zNjExMjcw"
    "MDAwMDBaMBwxGjAYBgNVBAMMEWlzc3VlciAwKjAFBgMrZXADIQCjgbIwga8wEgYDVR0TAQH/BAgwBgEB/wIBATAOBgNVHQ8B"
    "Af8EBAMCAgQwEQYDVR0OBAoECDATBgNVHSMEDDAKgAgwYQYTadHKqvCyu9K4n5vtpsu31IPsXARKo2Fjh2ZtZW1iZXJmc3Vi"
    "bWl0ZHdvcmtjaHViZXJlbGF5Zmlzc3VlcmVhZG1pbmFrZmlzc3VlcmFtUDAFBgMrZXADQQBha1ggYW5kbWVzaGFygVkBoTCC"
    "AZ0wggFPoAMCAQICCDAFBgMrZXAwGjEYMBYGA1UEAwwPcm9vdCAwIBcNMjYxMTI5MjMwMDAwWhgPMjA1NjExMjIwMDAwMDBa"
    "MBoxGDAWBgNVBAMMD3Jvb3QgMCowBQYDK2VwAyEAo4GwMIGtMBIGA1UdEwEB/wQIMAYBAf8CAQIwDgYDVR0PAQH/BAQDAgIE"
    "MBEGA1UdDgQKBAgwEwYDVR0jBAwwCoAIMF8GE2nRyqrwsrvSuJ+b7abLt9SD7FwESKNhY4dmbWVtYmVyZnN1Ym1pdGR3b3Jr"
    "Y2h1YmVyZWxheWZpc3N1ZXJlYWRtaW5ha2Ryb290YW1QMAUGAytlcANBAGFzgnExOTIuMTY4LjEuMTo1MTgyMW4xMC4wLjAu"
    "MTo1MTgyMWF2WQGmMIIBojCCAVSgAwIBAgIIMAUGAytlcDAcMRowGAYDVQQDDBFpc3N1ZXIgMB4XDTI2MTEyOTIzMDAwMFoX"
    "DTI2MTIwMTAwMDAwMFowHDEaMBgGA1UEAwwRaW52aXRlIDAqMAUGAytlcAMhAKOBszCBsDASBgNVHRMBAf8ECDAGAQH/AgEA"
    "MA4GA1UdDwEB/wQEAwICBDARBgNVHQ4ECgQIMBMGA1UdIwQMMAqACDBiBhNp0cqq8LK70rifm+2my7fUg+xcBEulYWOFZm1l"
    "bWJlcmZzdWJtaXRkd29ya2NodWJlcmVsYXlha2ZpbnZpdGVhbVBhcoFnY29tcHV0ZWF1ATAFBgMrZXADQQA="
)
