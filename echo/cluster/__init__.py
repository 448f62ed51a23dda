"""Several engines behind one address, as replicas of a Ray Serve deployment.

A request passes Serve's proxy, in which ``edge`` stands before everything, is routed by ``router``
to a replica, and there meets the same application as in a single server (``replica``).
"""
