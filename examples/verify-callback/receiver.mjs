#!/usr/bin/env node
// Takes Conductor's callbacks and believes only those that are signed. Needs Node 18 or newer and nothing else.
//
//     CALLBACK_SECRET=whsec_… PORT=8080 node receiver.mjs
//
// Where a private key signs (whsk_…), give it the public one instead: CALLBACK_PUBLIC_KEY=whpk_…

import { createHmac, createPublicKey, timingSafeEqual, verify as verifySignature } from "node:crypto";
import { createServer } from "node:http";

const TOLERANCE_SECONDS = 5 * 60;
const BODY_MAX = 1024 * 1024;

/** What a callback says, if it is signed; throws if it is not. */
export function verify({ secret, publicKey }, headers, body) {
  const id = headers["webhook-id"] ?? "";
  const sentAt = headers["webhook-timestamp"] ?? "";
  // The time is signed too, so that nobody can send an old callback again.
  if (!/^\d+$/.test(sentAt) || Math.abs(Date.now() / 1000 - Number(sentAt)) > TOLERANCE_SECONDS) {
    throw new Error("the timestamp is missing, or more than five minutes from now");
  }
  // The exact bytes of the body: JSON that was read and written again is not the same.
  const signed = Buffer.concat([Buffer.from(`${id}.${sentAt}.`), body]);
  // While a secret is changed there are two signatures, and one has to fit.
  for (const entry of (headers["webhook-signature"] ?? "").split(" ")) {
    const [version, signature = ""] = entry.split(",");
    const given = Buffer.from(signature, "base64");
    if (version === "v1" && secret && fitsSecret(secret, signed, given)) return JSON.parse(body);
    if (version === "v1a" && publicKey && fitsPublicKey(publicKey, signed, given)) return JSON.parse(body);
  }
  throw new Error("no signature fits");
}

function fitsSecret(secret, signed, given) {
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const expected = createHmac("sha256", key).update(signed).digest();
  return given.length === expected.length && timingSafeEqual(given, expected);
}

function fitsPublicKey(publicKey, signed, given) {
  // What stands before the 32 bytes of every ed25519 key where it is written as DER.
  const prefix = Buffer.from("302a300506032b6570032100", "hex");
  const der = Buffer.concat([prefix, Buffer.from(publicKey.replace(/^whpk_/, ""), "base64")]);
  return verifySignature(null, signed, createPublicKey({ key: der, format: "der", type: "spki" }), given);
}

const keys = { secret: process.env.CALLBACK_SECRET, publicKey: process.env.CALLBACK_PUBLIC_KEY };
// The same callback may come twice. A real receiver keeps this with its data, for three days.
const seen = new Set();

const server = createServer(async (request, response) => {
  const parts = [];
  let length = 0;
  for await (const part of request) {
    length += part.length;
    if (length > BODY_MAX) return response.writeHead(413, { connection: "close" }).end();
    parts.push(part);
  }
  let callback;
  try {
    callback = verify(keys, request.headers, Buffer.concat(parts));
  } catch (error) {
    console.log(`refused: ${error.message}`);
    return response.writeHead(401).end();
  }
  if (!seen.has(request.headers["webhook-id"])) {
    seen.add(request.headers["webhook-id"]);
    console.log(callback.type, callback.data.id ?? callback.data.channelId);
  }
  // Answer soon, and do what takes long afterwards: Conductor waits 15 seconds. Anything but 2xx is tried again.
  response.writeHead(204).end();
});

server.listen(Number(process.env.PORT ?? 8080), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
