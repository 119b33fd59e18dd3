// One process of a system that is measured beside ours:
//
//     node peer.js <socketio | nats> <master | worker | fakes | client> PORT [COUNT]
//
// The file of each library has what is its own, and this one what they share. A process writes `true` when it is ready, and ends
// with its standard input; a client then answers each line of input, a task, with when it began and ended and what it printed.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

const HEARTBEAT_MS = 5000;
const TEXT = 100;
const [library, role, port, count] = process.argv.slice(2);
const peer = await import(`./${library}.js`);

function answer(value) {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

/** Starts the command of a task, and gives its output away as it comes. */
function start(task, output, ended) {
  const child = spawn('sh', ['-c', task.command], { stdio: ['ignore', 'pipe', 'inherit'] });
  child.stdout.on('data', output);
  child.on('close', ended);
}

/** In place of `start`: a command that ends as soon as it is started. */
function end(_task, _output, ended) {
  ended(0);
}

async function worker(name, run) {
  const beat = await peer.worker(port, name, run);
  setTimeout(() => setInterval(beat, HEARTBEAT_MS), Math.random() * HEARTBEAT_MS);
}

async function fakes() {
  const names = Array.from({ length: Number(count) }, (_, number) => `worker-${number}`);
  while (names.length > 0) await Promise.all(names.splice(0, 50).map((name) => worker(name, end)));
}

/** Milliseconds since the Unix epoch, with a fraction. */
function clock() {
  return performance.timeOrigin + performance.now();
}

async function client() {
  let bytes, text, ended;
  const output = (chunk) => {
    if (text.length < TEXT) text += Buffer.from(chunk).toString('latin1', 0, TEXT);
    bytes += chunk.length;
  };
  const submit = await peer.client(port, output, () => ended());
  answer(true);
  for await (const line of createInterface({ input: process.stdin })) {
    [bytes, text] = [0, ''];
    const end = new Promise((resolve) => { ended = resolve; });
    const begun = clock();
    submit(JSON.parse(line));
    await end;
    answer({ begun, ended: clock(), bytes, text });
  }
}

if (role === 'client') {
  await client();
  process.exit();
}
process.stdin.resume().on('end', () => process.exit());
await { master: () => peer.master(port), worker: () => worker('worker-0', start), fakes }[role]();
answer(true);
