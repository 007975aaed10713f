// Sends a notification: node notify.mjs "The backup is done." [channel]
//
// Needs Node 20 or newer, and CONDUCTOR_URL and CONDUCTOR_KEY in the environment. In a program:
//
//   import { notify } from './notify.mjs';
//   await notify('The backup is done.', 'discord', { priority: 'high' });

import { randomUUID } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';

const TRIES = 5;

/** Resolves to the notification's id once Conductor has it on disk. `fields` are any of the API's others. */
export async function notify(message, channel = 'log', fields = {}) {
  const request = {
    method: 'POST',
    headers: {
      Authorization: `Bearer ${process.env.CONDUCTOR_KEY}`,
      'Content-Type': 'application/json',
      // The same key in every try: a repeated request makes no second notification.
      'Idempotency-Key': randomUUID(),
    },
    body: JSON.stringify({ channel, message, ...fields }),
  };
  for (let attempt = 1; ; attempt++) {
    let wait = 2 ** attempt;
    try {
      const response = await fetch(`${process.env.CONDUCTOR_URL}/notifications`, { ...request, signal: AbortSignal.timeout(30_000) });
      const answer = await response.json();
      if (response.ok) return answer.id;
      const again = [409, 429, 503].includes(response.status);
      if (!again) throw new Refused(`Conductor answered ${response.status}: ${answer.error}`);
      wait = Number(response.headers.get('Retry-After') ?? wait);
      if (attempt === TRIES) throw new Refused(`Conductor answered ${response.status}: ${answer.error}`);
    } catch (error) {
      if (error instanceof Refused || attempt === TRIES) throw error;
    }
    await setTimeout(wait * 1000);
  }
}

class Refused extends Error {}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  console.log(await notify(...process.argv.slice(2, 4)));
}
