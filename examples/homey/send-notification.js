// HomeyScript. Use it in a Flow with the card "Run a script with argument": the argument is the message.
//
// Run this once, as a script of its own, so that the key stands in no Flow:
//   global.set('conductorUrl', 'http://192.168.1.10:3333');
//   global.set('conductorKey', 'your-key');

const response = await fetch(`${global.get('conductorUrl')}/notifications`, {
  method: 'POST',
  headers: {
    Authorization: `Bearer ${global.get('conductorKey')}`,
    'Content-Type': 'application/json',
  },
  body: JSON.stringify({
    channel: 'log',
    title: 'Homey',
    message: String(args[0]),
    priority: 'high',
  }),
});

const answer = await response.json();
if (!response.ok) throw new Error(`Conductor refused it: ${answer.error}`);
return answer.id;
