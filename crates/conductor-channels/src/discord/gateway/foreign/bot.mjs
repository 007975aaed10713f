// Connects with discord.js, resumes, sends one message, and leaves. Says what has happened.
import { createRequire } from "node:module";

const [base, modules, token] = process.argv.slice(2);
const { Client, Events, Routes } = createRequire(`${modules}/`)("discord.js");
const client = new Client({ intents: [], rest: { api: `${base}/api` } });
client.once(Events.ClientReady, () => console.log("ready"));
client.once(Events.ShardResume, async () => {
  console.log("resumed");
  const message = await client.rest.post(Routes.channelMessages("42"), { body: { content: "hello" } });
  console.log("sent", message.id);
  await client.destroy();
});
await client.login(token);
