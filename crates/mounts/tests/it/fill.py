"""Fills storage as its official client does: fill.py KIND ENDPOINT NAME DIRECTORY [put PATH FILE | delete PATH | many N]."""

import pathlib
import sys


def s3(endpoint, name):
    import boto3

    keys = {"aws_access_key_id": "test-id", "aws_secret_access_key": "test-secret-0123456789"}
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
    if name not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=name)
    put = lambda path, data: client.put_object(Bucket=name, Key=path, Body=data)
    return put, lambda path: client.delete_object(Bucket=name, Key=path)


def azure(endpoint, name):
    from azure.storage.blob import BlobServiceClient

    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    service = BlobServiceClient(endpoint, credential=key)
    container = service.get_container_client(name)
    if not container.exists():
        container.create_container()
    put = lambda path, data: container.upload_blob(path, data, overwrite=True)
    return put, lambda path: container.delete_blob(path)


put, delete = {"s3": s3, "azure": azure}[sys.argv[1]](sys.argv[2], sys.argv[3])
directory = pathlib.Path(sys.argv[4])
what = sys.argv[5:]
if not what:
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            put(str(path.relative_to(directory)), path.read_bytes())
elif what[0] == "put":
    put(what[1], pathlib.Path(what[2]).read_bytes())
elif what[0] == "delete":
    delete(what[1])
elif what[0] == "many":
    for number in range(int(what[1])):
        put(f"many/{number:05}", b"%d" % number)
