// Workers and clients of a broker, nats-server, in the manner of Choria and MCollective: a task is published to one worker or to
// all, and its client counts those that have ended it.
import { connect } from '@nats-io/transport-node';

export async function worker(port, name, run) {
  const nats = await connect({ port: Number(port) });
  const callback = (error, message) => {
    if (error) throw error;
    const task = message.json();
    run(task, (chunk) => nats.publish(`output.${task.id}`, chunk), (code) => publish(nats, `ended.${task.id}`, { name, code }));
  };
  for (const subject of ['task.all', `task.${name}`]) nats.subscribe(subject, { callback });
  await nats.flush();
  return () => publish(nats, 'heartbeat', { name, at: Date.now() });
}

export async function client(port, output, ended) {
  const nats = await connect({ port: Number(port) });
  let left;
  nats.subscribe('output.*', { callback: (_error, message) => output(message.data) });
  nats.subscribe('ended.*', {
    callback: () => {
      left -= 1;
      if (left === 0) ended();
    },
  });
  await nats.flush();
  return (task) => {
    left = task.workers;
    publish(nats, `task.${task.target}`, task);
  };
}

function publish(nats, subject, value) {
  nats.publish(subject, JSON.stringify(value));
}
