"""Which replica of a deployment takes a call."""

import socket

import pytest

from faulty_upstream import FaultyUpstream
from made_calls import make_arm
from pilotage.gateway.providers.replicas import Replicas
from pilotage.gateway.targets import ReplicaTarget, Targets
from pilotage.gateway.transport.upstream import Limits, UpstreamFailure


def make_targets(*ports: int) -> Targets:
    return Targets(
        replicas=[
            ReplicaTarget(
                id=f"dep_a.{n}", deployment_id="dep_a", host="127.0.0.1", port=port, key="k"
            )
            for n, port in enumerate(ports)
        ]
    )


async def test_the_least_busy_replica_is_taken() -> None:
    replicas = Replicas(Limits())
    replicas.apply(make_targets(1, 2, 3))
    taken = []
    for _ in range(6):
        replica = replicas.pick(make_arm("dep_a"))
        replica.enter()
        taken.append(replica.target.port)
    assert sorted(taken) == [1, 1, 2, 2, 3, 3]
    replicas.close()


async def test_a_replica_that_cannot_be_reached_is_left_alone_for_a_while() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead_port = closed.getsockname()[1]
    async with FaultyUpstream() as upstream:
        replicas = Replicas(Limits())
        replicas.apply(make_targets(dead_port, upstream.port))
        dead = replicas.pick(make_arm("dep_a"))
        assert dead.target.port == dead_port
        with pytest.raises(UpstreamFailure, match="connect"):
            await dead.pool.post(b"POST / HTTP/1.1\r\n", b"{}")
        for _ in range(5):
            replica = replicas.pick(make_arm("dep_a"))
            replica.enter()
            assert replica.target.port == upstream.port  # busier, but there
        replicas.apply(make_targets(dead_port))
        assert replicas.pick(make_arm("dep_a")).target.port == dead_port  # the only one
        replicas.close()
