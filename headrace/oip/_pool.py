"""The descriptor pool of the Open Inference messages.

Every package that ships Open Inference stubs (tritonclient, kserve) registers `inference.*` in
protobuf's default pool, which takes each name once per process. Ours are in a pool of their own, so
that headrace imports beside any of them, in either order.
"""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
