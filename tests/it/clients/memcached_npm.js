// npm's memcached: callbacks, JSON, many requests in flight on a pool, three servers on a hash ring.
'use strict';
const assert = require('assert');
const readline = require('readline');
const Memcached = require('memcached');

const ports = process.argv.slice(2);
assert.strictEqual(ports.length, 3);
const addresses = ports.map((port) => `127.0.0.1:${port}`);
// A request that finds all connections of the pool in use tries again soon and often.
const busy = { retries: 1000, factor: 1, minTimeout: 1, maxTimeout: 5 };
const options = { ...busy, timeout: 10000, failures: 1000, retry: 1, reconnect: 1, idle: 60000 };

// Calls a method and returns a promise.
function call(client, method, ...args) {
  return new Promise((resolve, reject) => {
    client[method](...args, (error, result) => (error ? reject(error) : resolve(result)));
  });
}
const fails = (promise) => promise.then(() => assert.fail('it should have failed'), (error) => error);

async function commands(client) {
  const ask = (method, ...args) => call(client, method, ...args);

  assert.strictEqual(await ask('get', 'nothing'), undefined);
  assert.strictEqual(await ask('set', 'key', 'value', 100), true);
  assert.strictEqual(await ask('get', 'key'), 'value');
  // The flags carry the type of a value.
  for (const value of ['', 'ünïcode', 42, -1.5, true, false, null, [1, 'two'], { a: { b: 'c' } }]) {
    await ask('set', 'typed', value, 100);
    assert.deepStrictEqual(await ask('get', 'typed'), value);
  }
  const bytes = Buffer.from([0, 13, 10, 255, 69, 78, 68, 13, 10, 0]);
  await ask('set', 'bytes', bytes, 100);
  assert.deepStrictEqual(await ask('get', 'bytes'), bytes);

  await fails(ask('add', 'key', 'x', 100));
  assert.strictEqual(await ask('add', 'new', 'b', 100), true);
  assert.strictEqual(await ask('replace', 'new', 'b', 100), true);
  await fails(ask('replace', 'nothing', 'x', 100));
  assert.strictEqual(await ask('append', 'new', 'c'), true);
  assert.strictEqual(await ask('prepend', 'new', 'a'), true);
  assert.strictEqual(await ask('get', 'new'), 'abc');
  assert.strictEqual(await ask('del', 'new'), true);
  assert.strictEqual(await ask('del', 'new'), false);

  const found = await ask('gets', 'key');
  assert.strictEqual(found.key, 'value');
  assert.strictEqual(await ask('cas', 'key', 'mine', found.cas, 100), true);
  assert.strictEqual(await ask('cas', 'key', 'late', found.cas, 100), false);

  await ask('set', 'counter', 10, 100);
  assert.strictEqual(await ask('incr', 'counter', 5), 15);
  assert.strictEqual(await ask('decr', 'counter', 20), 0);
  assert.strictEqual(await ask('incr', 'nothing', 1), false);
  await Promise.all(Array.from({ length: 200 }, () => ask('incr', 'counter', 1)));
  assert.strictEqual(Number(await ask('get', 'counter')), 200);

  // Expiry: none, in a while, a date (the client turns more than a month into a date), long ago.
  const now = Math.floor(Date.now() / 1000);
  for (const [expiry, value] of [[0, 'x'], [100, 'x'], [2592000, 'x'], [now + 100, 'x'], [-1, undefined]]) {
    await ask('set', 'timed', 'x', expiry);
    assert.strictEqual(await ask('get', 'timed'), value, `expiry ${expiry}`);
  }
  await ask('set', 'timed', 'x', 100);
  assert.strictEqual(await ask('touch', 'timed', 100), true);
  assert.strictEqual(await ask('touch', 'timed', -1), true);
  assert.strictEqual(await ask('get', 'timed'), undefined);
  assert.strictEqual(await ask('touch', 'nothing', 100), false);

  const keys = Array.from({ length: 300 }, (_, i) => `many-${i}`);
  await Promise.all(keys.map((key, i) => ask('set', key, i, 100)));
  const many = await ask('getMulti', [...keys, 'nothing']);
  assert.deepStrictEqual(keys.map((key) => many[key]), keys.map((_, i) => i));
  assert.strictEqual(Object.keys(many).length, 300);

  const blob = 'x'.repeat(900000);
  await Promise.all([1, 2, 3, 4].map((i) => ask('set', `blob-${i}`, blob, 100)));
  for (const i of [1, 2, 3, 4]) assert.strictEqual(await ask('get', `blob-${i}`), blob);
}

async function statistics(client, servers) {
  const versions = await call(client, 'version');
  assert.strictEqual([].concat(versions).length, servers);
  for (const { version, major, minor } of [].concat(versions)) {
    assert.ok(/^1\.6\.\d+$/.test(version), version);
    assert.deepStrictEqual([Number(major), Number(minor)], [1, 6]);
  }
  const stats = [].concat(await call(client, 'stats'));
  assert.strictEqual(stats.length, servers);
  assert.ok(stats.every((one) => one.pid > 0 && one.get_hits > 0 && one.curr_items > 0), JSON.stringify(stats));
  for (const settings of [].concat(await call(client, 'settings'))) assert.strictEqual(settings.maxconns, 1024);
  for (const items of [].concat(await call(client, 'items'))) {
    const classes = Object.keys(items).filter((name) => /^\d+$/.test(name));
    assert.ok(classes.length >= 1 && classes.every((id) => items[id].number >= 1), JSON.stringify(items));
  }
  for (const slabs of [].concat(await call(client, 'slabs'))) {
    assert.ok(Object.keys(slabs).some((id) => slabs[id].chunk_size >= 48), JSON.stringify(slabs));
  }
}

async function main() {
  const one = new Memcached(addresses[0], options);
  await commands(one);
  await statistics(one, 1);
  assert.ok(await call(one, 'flush'));
  assert.strictEqual(await call(one, 'get', 'key'), undefined);
  one.end();

  const ring = new Memcached(addresses, options);
  await commands(ring);
  await statistics(ring, 3);

  const input = readline.createInterface({ input: process.stdin });
  const restarted = new Promise((resolve) => input.once('line', resolve));
  console.log('restart');
  await restarted;
  input.close();
  for (let i = 0; ; i++) {
    // Each old connection may fail once.
    const set = await call(ring, 'set', 'again', 'x', 100).catch(() => false);
    if (set && (await call(ring, 'get', 'again').catch(() => null)) === 'x') break;
    assert.ok(i < 100, 'it does not reconnect');
  }
  ring.end();
  console.log('ok');
  process.exit(0);
}

main().catch((error) => {
  console.log(error && error.stack ? error.stack : error);
  process.exit(1);
});
