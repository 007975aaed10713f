"""Connects with discord.py, resumes, sends one message, and leaves. Says what has happened."""

import sys

import discord
from discord.gateway import DiscordWebSocket
from yarl import URL

base, gateway, token = sys.argv[1:4]
discord.http.Route.BASE = base + "/api/v10"
DiscordWebSocket.DEFAULT_GATEWAY = URL(gateway)


class Bot(discord.Client):
    async def on_ready(self):
        print("ready", flush=True)

    async def on_resumed(self):
        print("resumed", flush=True)
        message = await self.get_partial_messageable(42).send("hello")
        print("sent", message.id, flush=True)
        await self.wait_until_ready()
        await self.close()


Bot(intents=discord.Intents.none()).run(token, log_handler=None)
