"""Submits a job file and reads what its functions returned: JSON, so nothing is unpickled here."""

from pathlib import Path

from meshpeer.client import connect


def main() -> None:
    with connect() as mesh:
        job = mesh.submit_job(Path(__file__).with_name("shapes.yaml"))
        *areas, report = job.gather()
        print(*areas, sep="\n")
        print(report)


if __name__ == "__main__":
    main()
