"""The named limits of everything that crosses a link or waits in memory."""

from __future__ import annotations

FRAME_BYTES_MAX = 65_536
"""One frame on a link, channel byte included."""
RECORD_BYTES_MAX = 1_024
"""One signed record: body and signature."""
CERTIFICATE_BYTES_MAX = 1_024
"""One DER certificate; ours are about 400 bytes."""
CHAIN_LENGTH_MAX = 4
"""Certificates in one chain, leaf first, root left out."""
ENDPOINTS_MAX = 8
"""Endpoints of one kind in a member record."""
MEMBERS_MAX = 16_384
"""Members that a ledger holds; a mesh beyond that is refused with a clear error."""
CBOR_DEPTH_MAX = 16
"""Nesting of arrays and maps in anything we decode."""
NAME_LENGTH_MAX = 63
"""One DNS label (RFC 1035)."""
ROLES_MAX = 16
BLOB_BYTES_MAX = 1024**4
"""One file that a job carries or a task produces: it is moved, hashed and kept in blocks, never whole."""
DOCUMENT_BYTES_MAX = 64 * 1024 * 1024
"""One blob that is read into memory whole: a job's record, a manifest, a list of inputs."""
BLOB_CHUNK_BYTES = 56 * 1024
"""Payload of one bulk frame; leaves room for its envelope."""
JOB_TASKS_MAX = 100_000
"""Tasks of one job after arrays are expanded."""
