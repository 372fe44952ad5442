"""cloud-init as a neighbour or a peer: what it has to be told where a test plays the instance."""

from __future__ import annotations

CONFIG_FILE = "/etc/cloud/cloud.cfg.d/99-test.cfg"
ON_A_PLAYED_INSTANCE = """\
datasource_list: [Ec2]
datasource:
  Ec2:
    strict_id: false
    metadata_urls: ["http://169.254.169.254"]
network: {config: disabled}
"""
"""It takes the metadata service for EC2's, and leaves the network alone; all else is as it comes."""
