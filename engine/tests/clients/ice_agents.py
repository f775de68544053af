"""Two ICE agents (aioice) that may use nothing but relayed candidates connect and exchange data.

usage: ice_agents.py HOST PORT USER PASSWORD TRANSPORT MESSAGES

TRANSPORT is udp, tcp or tls: how both reach the TURN server. Prints JSON: the candidates' types and addresses of each
agent, the pair that was nominated, and how many messages came back as they were sent, each way.
"""

import asyncio
import json
import os
import ssl
import sys

import aioice


async def exchange(one, two, messages):
    """Sends from one to the other and back; how many came back unchanged."""
    intact = 0
    for i in range(messages):
        payload = os.urandom(1 + i * 1199 // max(messages - 1, 1))
        await one.send(payload)
        received = await asyncio.wait_for(two.recv(), 30)
        await two.send(received)
        intact += await asyncio.wait_for(one.recv(), 30) == payload
    return intact


async def main(host, port, user, password, transport, messages):
    agents = [
        aioice.Connection(
            ice_controlling=controlling,
            turn_server=(host, int(port)),
            turn_username=user,
            turn_password=password,
            turn_transport="udp" if transport == "udp" else "tcp",
            turn_ssl=transport == "tls",
            transport_policy=aioice.TransportPolicy.RELAY,
        )
        for controlling in (True, False)
    ]
    for agent in agents:
        await agent.gather_candidates()
    for agent, other in (agents, agents[::-1]):
        for candidate in other.local_candidates:
            await agent.add_remote_candidate(candidate)
        await agent.add_remote_candidate(None)
        agent.remote_username, agent.remote_password = other.local_username, other.local_password
    await asyncio.gather(*(agent.connect() for agent in agents))
    out = {
        "candidates": [
            [[candidate.type, candidate.host, candidate.port] for candidate in agent.local_candidates]
            for agent in agents
        ],
        "intact": [await exchange(*agents, int(messages)), await exchange(*agents[::-1], int(messages))],
    }
    for agent in agents:
        await agent.close()
    print(json.dumps(out))


# The server's certificate is its own, as that of every TURN server in a test is.
ssl.create_default_context = ssl._create_unverified_context
asyncio.run(main(*sys.argv[1:]))
