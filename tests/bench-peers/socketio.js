// The usual master and workers: workers register and beat, a client's task goes to one or all of them, and the master passes on
// what they send.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { Server } from 'socket.io';
import { io } from 'socket.io-client';

export async function master(port) {
  const http = createServer();
  const workers = new Map();
  const tasks = new Map();
  new Server(http, { serveClient: false, maxHttpBufferSize: 64e6 }).on('connection', (socket) => {
    socket.on('register', (name, registered) => {
      workers.set(name, socket);
      socket.on('disconnect', () => workers.delete(name));
      registered();
    });
    socket.on('heartbeat', (beat) => { socket.data.beat = beat; });
    socket.on('submit', (task) => {
      const targets = task.target === 'all' ? [...workers.values()] : [workers.get(task.target)];
      tasks.set(task.id, { client: socket, left: targets.length });
      for (const worker of targets) worker.emit('task', task);
    });
    socket.on('output', (id, chunk) => tasks.get(id).client.emit('output', chunk));
    socket.on('ended', (id) => {
      const task = tasks.get(id);
      task.left -= 1;
      if (task.left > 0) return;
      tasks.delete(id);
      task.client.emit('ended');
    });
  });
  http.listen(port, '127.0.0.1');
  await once(http, 'listening');
}

export async function worker(port, name, run) {
  const socket = dial(port);
  socket.on('task', (task) => {
    run(task, (chunk) => socket.emit('output', task.id, chunk), (code) => socket.emit('ended', task.id, code));
  });
  await once(socket, 'connect');
  await socket.emitWithAck('register', name);
  return () => socket.emit('heartbeat', { name, at: Date.now() });
}

export async function client(port, output, ended) {
  const socket = dial(port);
  socket.on('output', output);
  socket.on('ended', ended);
  await once(socket, 'connect');
  return (task) => socket.emit('submit', task);
}

function dial(port) {
  return io(`http://127.0.0.1:${port}`, { transports: ['websocket'], forceNew: true });
}
