// npm's memcached: it has a parser for the reply to `config get cluster`, and no method that asks. A program that uses it
// sends the command and makes a client for the nodes.
'use strict';
const assert = require('assert');
const readline = require('readline');
const Memcached = require('memcached');

const ports = process.argv.slice(2).map(Number);
assert.strictEqual(ports.length, 3);
const endpoint = new Memcached(`127.0.0.1:${ports[0]}`, { timeout: 20000 });
const lines = readline.createInterface({ input: process.stdin });

function say(word) {
  const answered = new Promise((resolve) => lines.once('line', resolve));
  console.log(word);
  return answered;
}

// The version and the nodes that the server tells.
async function discover() {
  const found = await new Promise((resolve, reject) => {
    const callback = (error, result) => (error ? reject(error) : resolve(result));
    endpoint.command(() => ({ callback, type: 'config', command: 'config get cluster' }));
  });
  const [version, nodes] = [].concat(found)[0].trim().split('\n');
  const addresses = nodes.split(' ').map((node) => node.split('|'));
  return { version: Number(version), addresses: addresses.map(([, ip, port]) => `${ip}:${port}`) };
}

// Reads the nodes, which must be these, and stores a hundred values on them.
async function work(version, wanted) {
  const cluster = await discover();
  assert.deepStrictEqual(cluster, { version, addresses: wanted.map((port) => `127.0.0.1:${port}`) });
  const client = new Memcached(cluster.addresses, { timeout: 20000 });
  const call = (method, ...args) => new Promise((resolve, reject) => {
    client[method](...args, (error, result) => (error ? reject(error) : resolve(result)));
  });
  for (let i = 0; i < 100; i++) {
    assert.strictEqual(await call('set', `key:${i}`, i, 100), true);
    assert.strictEqual(await call('get', `key:${i}`), i);
  }
  client.end();
}

async function main() {
  await work(2, ports.slice(0, 2));
  await say('add');
  await work(3, ports);
  await say('remove');
  await say('end');
  await work(4, [ports[0], ports[2]]);
  endpoint.end();
  lines.close();
  console.log('ok');
}

main().catch((error) => {
  console.log(error && error.stack ? error.stack : error);
  process.exit(1);
});
