"""Disables or enables a key in a KMS, as its owner does: key_state.py ENDPOINT ARN disable|enable."""

import sys

import boto3

endpoint, arn, verb = sys.argv[1:]
kms = boto3.client("kms", endpoint_url=endpoint, region_name=arn.split(":")[3])
# By its id alone: moto changes no key that is named by its ARN, which AWS does.
{"disable": kms.disable_key, "enable": kms.enable_key}[verb](KeyId=arn.rsplit("/", 1)[-1])
